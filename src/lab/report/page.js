/*
 * page.js - draws the page of a results file: reads the tables in #data, and fills #page section by section.
 *
 * Text of the file only ever becomes text nodes and attributes, never markup.  Charts are SVG with colours of the style
 * sheet, so that they follow the dark and print; under each is a table with the same numbers.
 */
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");

/* ---------------------------------------------------------------- elements */

const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (name === "onclick" || name === "onchange") node.addEventListener(name.slice(2), value);
        else if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
}

function draw(tag, attributes = {}, text = null) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== null) node.textContent = text;
    return node;
}

/* ---------------------------------------------------------------- numbers in words */

function short(value, digits = 3) {
    if (value === null || value === undefined) return "";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e15 || size < 1e-4) return value.toExponential(digits - 1);
    if (Number.isInteger(value)) return value.toLocaleString("en");
    return String(Number(value.toPrecision(digits)));
}

const percent = (value) => (value === null || value === undefined ? "" : (100 * value).toFixed(1) + " %");
const percentTick = (value) => Number((100 * value).toPrecision(3)) + " %";
const points = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + (100 * Math.abs(value)).toFixed(1);

/* ---------------------------------------------------------------- tables of the file */

function rowsOf(name) {
    const table = data.tables[name];
    if (!table) return [];
    return table.rows.map((row) => Object.fromEntries(row.map((value, i) => [table.columns[i], value])));
}

const manifest = Object.fromEntries(rowsOf("manifest").map((row) => [row.key, row.value]));
const runs = rowsOf("run");
const runById = new Map(runs.map((run) => [run.id, run]));
for (const run of runs) {
    run.values = {};
    run.comparisons = {};
    run.places = placesOf(run.selected || "");
}
for (const row of rowsOf("value")) if (runById.has(row.run)) runById.get(row.run).values[row.name] = row;
for (const row of rowsOf("comparison")) if (runById.has(row.run)) runById.get(row.run).comparisons[row.name] = row;
const clean = runs.find((run) => run.error === "none") || null;
const changed = runs.filter((run) => run.error !== "none");

/* "1.5 2.0 model.layers.3.x": experts as {layer, expert}, other matrices as {layer, name}. */
function placesOf(selected) {
    return selected.split(/\s+/).filter((word) => word !== "").map((word) => {
        const expert = /^(\d+)\.(\d+)$/.exec(word);
        if (expert) return { layer: Number(expert[1]), expert: Number(expert[2]) };
        const named = /(?:^|\.)layers\.(\d+)\./.exec(word);
        return { layer: named ? Number(named[1]) : null, name: word };
    });
}

function layerOf(run) {
    const layers = new Set(run.places.map((place) => place.layer));
    return layers.size === 1 ? [...layers][0] : null;
}

const condition = (run) => run.error + (run.bound ? " " + run.bound : "") + (run.projection && run.projection !== "all" ? ", " + run.projection : "");
const caption = (run) => (run.label ? run.label + ": " : "") + (run.target || "clean") + (run.error === "none" ? "" : ", " + condition(run));

/* Runs that differ in their seed alone. */
function pool(list) {
    const groups = new Map();
    for (const run of list) {
        const key = JSON.stringify([run.label, run.target, run.error, run.bound, run.projection]);
        if (!groups.has(key)) groups.set(key, []);
        groups.get(key).push(run);
    }
    return [...groups.values()];
}

const pooledRows = new Map(rowsOf("pooled").map((row) => [JSON.stringify([row.label, row.target, row.error, row.bound, row.name]), row]));

/* A figure over seeds: {value, low, high}; without a pooled interval, from the lowest to the highest of the seeds. */
function figureOf(group, name) {
    const first = group[0];
    const row = pooledRows.get(JSON.stringify([first.label, first.target, first.error, first.bound, name]));
    if (row && row.mean !== null && group.length > 1) return { value: row.mean, low: row.low, high: row.high };
    const found = group.map((run) => run.values[name]).filter((value) => value && value.value !== null);
    if (found.length === 0) return null;
    const lows = found.map((value) => value.low).filter((value) => value !== null);
    const highs = found.map((value) => value.high).filter((value) => value !== null);
    return {
        value: found.reduce((sum, value) => sum + value.value, 0) / found.length,
        low: lows.length ? Math.min(...lows) : null,
        high: highs.length ? Math.max(...highs) : null,
    };
}

/* ---------------------------------------------------------------- parts of the page */

const sections = [], missing = [];

function section(id, title, ...children) {
    sections.push([id, title]);
    const node = make("section", { id }, make("h2", {}, title), ...children);
    page.append(node);
    return node;
}

function save(name, text, type) {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function csv(columns, rows) {
    const cell = (value) => {
        const text = value === null || value === undefined ? "" : String(value);
        return /[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
    };
    return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

/* columns: {title, of(row) -> value, show(value) -> text, kind(row) -> class, long}. Sorted by a click on a title. */
function table(name, columns, rows, isWhole = false) {
    const body = make("tbody");
    const isNumber = columns.map((column) => rows.some((row) => typeof column.of(row) === "number"));
    const fill = (list) => body.replaceChildren(...list.map((row) => make("tr", {}, ...columns.map((column, i) => {
        const value = column.of(row);
        const kind = [isNumber[i] ? "number" : "", column.long ? "long" : "", column.kind ? column.kind(row) : ""].join(" ").trim();
        return make("td", kind ? { class: kind } : {}, column.show ? column.show(value, row) : typeof value === "number" ? short(value, 4) : value === null || value === undefined ? "" : String(value));
    }))));
    const heads = columns.map((column, i) => {
        const head = make("th", { scope: "col", class: isNumber[i] ? "number" : null }, make("button", {
            type: "button",
            onclick: () => {
                const up = head.getAttribute("aria-sort") !== "ascending";
                for (const other of heads) other.removeAttribute("aria-sort");
                head.setAttribute("aria-sort", up ? "ascending" : "descending");
                const key = (row) => column.of(row);
                fill([...rows].sort((a, b) => {
                    const x = key(a), y = key(b);
                    if (x === null || x === undefined) return 1;
                    if (y === null || y === undefined) return -1;
                    return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
                }));
            },
        }, column.title));
        return head;
    });
    fill(rows);
    const button = make("button", { type: "button", class: "save", onclick: () => save(name + ".csv", csv(columns.map((column) => column.title), rows.map((row) => columns.map((column) => column.of(row)))), "text/csv") }, "Save as CSV");
    return make("div", {}, make("div", { class: isWhole ? "wide" : "wide scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body)), button);
}

const under = (title, node) => make("details", {}, make("summary", {}, title), node);

/* ---------------------------------------------------------------- charts */

const WIDTH = 720, COLOURS = 7;

function ticksOf(low, high, isLog) {
    const ticks = [];
    if (isLog) {
        const decades = Math.log10(high / low);
        const steps = decades > 3 ? [1] : decades > 1.2 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
        for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
            for (const step of steps) ticks.push(step * 10 ** power);
        return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
    }
    const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) ticks.push(Number((n * step).toPrecision(12)));
    return ticks;
}

function scale(values, from, to, { isLog = false, zero = false, pad = 0.04, whole = false } = {}) {
    let low = Math.min(...values), high = Math.max(...values);
    if (zero) { low = Math.min(low, 0); high = Math.max(high, 0); }
    if (isLog) {
        if (low === high) { low /= 2; high *= 2; }
        const grow = (high / low) ** pad;
        low /= grow; high *= grow;
    } else {
        if (low === high) { low -= 0.5; high += 0.5; }
        const grow = (high - low) * pad;
        low -= zero && low === 0 ? 0 : grow;
        high += zero && high === 0 ? 0 : grow;
    }
    const place = isLog
        ? (value) => from + (to - from) * Math.log(value / low) / Math.log(high / low)
        : (value) => from + (to - from) * (value - low) / (high - low);
    place.ticks = ticksOf(low, high, isLog).filter((tick) => !whole || Number.isInteger(tick));
    return place;
}

/* Series differ in shape as well as in colour. */
function mark(kind, x, y, size, colour, title) {
    const r = size;
    const shapes = [
        () => draw("circle", { cx: x, cy: y, r }),
        () => draw("rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r }),
        () => draw("path", { d: `M${x} ${y - 1.3 * r}L${x + 1.2 * r} ${y + r}H${x - 1.2 * r}Z` }),
        () => draw("path", { d: `M${x} ${y - 1.4 * r}L${x + 1.4 * r} ${y}L${x} ${y + 1.4 * r}L${x - 1.4 * r} ${y}Z` }),
        () => draw("path", { d: `M${x} ${y + 1.3 * r}L${x + 1.2 * r} ${y - r}H${x - 1.2 * r}Z` }),
    ];
    const node = shapes[kind % shapes.length]();
    node.setAttribute("class", "mark");
    node.style.fill = kind < shapes.length ? colour : "var(--ground)";
    node.style.stroke = colour;
    node.style.strokeWidth = "1.5";
    if (title) node.append(draw("title", {}, title));
    return node;
}

const colourOf = (i) => `var(--c${i % COLOURS})`;

function legend(names) {
    if (names.length < 2) return null;
    return make("ul", { class: "legend" }, ...names.map((name, i) => {
        const sign = draw("svg", { width: 14, height: 14, "aria-hidden": "true" });
        sign.append(mark(i, 7, 7, 4, colourOf(i), null));
        return make("li", {}, sign, name);
    }));
}

function frame(height, label) {
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${height}`, width: WIDTH, height, role: "img", "aria-label": label });
    return svg;
}

function axes(svg, x, y, box, { xTitle, yTitle, xShow = short, yShow = short }) {
    for (const tick of y.ticks) {
        svg.append(draw("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }));
        svg.append(draw("text", { class: "soft", x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, yShow(tick)));
    }
    svg.append(draw("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
    for (const tick of x.ticks) {
        svg.append(draw("line", { class: "axis", x1: x(tick), x2: x(tick), y1: box.bottom, y2: box.bottom + 4 }));
        svg.append(draw("text", { class: "soft", x: x(tick), y: box.bottom + 18, "text-anchor": "middle" }, xShow(tick)));
    }
    svg.append(draw("text", { class: "soft", x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, xTitle));
    svg.append(draw("text", { x: 0, y: 12 }, yTitle));
}

/* series: [{name, points: [{x, y, low, high, title}]}]. Intervals are bars through the marks. */
function chart({ series, xTitle, yTitle, xLog = false, yLog = false, zero = false, xShow = short, yShow = short, join = true, whole = false, base = null, about }) {
    const all = series.flatMap((one) => one.points);
    const ok = (value) => value !== null && Number.isFinite(value) && (!yLog || value > 0);
    const ys = all.flatMap((point) => [point.y, point.low, point.high]).filter(ok);
    if (base !== null && ok(base.y)) ys.push(base.y);
    const xs = all.map((point) => point.x).filter((value) => Number.isFinite(value) && (!xLog || value > 0));
    if (xs.length === 0 || ys.length === 0) return make("p", { class: "soft" }, "No values to draw.");
    const height = 340, box = { left: 64, right: WIDTH - 12, top: 26, bottom: height - 48 };
    const svg = frame(height, about || yTitle + " by " + xTitle);
    const x = scale(xs, box.left + 8, box.right - 8, { isLog: xLog, whole });
    const y = scale(ys, box.bottom, box.top, { isLog: yLog, zero });
    axes(svg, x, y, box, { xTitle, yTitle, xShow, yShow });
    if (base !== null && ok(base.y)) {
        svg.append(draw("line", { class: "axis", x1: box.left, x2: box.right, y1: y(base.y), y2: y(base.y), "stroke-dasharray": "5 4" }));
        svg.append(draw("text", { class: "soft", x: box.right, y: y(base.y) - 5, "text-anchor": "end" }, base.name));
    }
    series.forEach((one, i) => {
        const colour = colourOf(i), shift = (i - (series.length - 1) / 2) * Math.min(4, 24 / series.length);
        const list = one.points.filter((point) => ok(point.y) && Number.isFinite(point.x)).sort((a, b) => a.x - b.x);
        if (join && list.length > 1) {
            const line = draw("polyline", { points: list.map((point) => `${x(point.x) + shift},${y(point.y)}`).join(" "), fill: "none" });
            line.style.stroke = colour;
            line.style.strokeWidth = "1.5";
            svg.append(line);
        }
        for (const point of list) {
            const isBelow = yLog && point.low !== null && point.low <= 0; /* the bar ends at the chart's edge */
            if ((ok(point.low) || isBelow) && ok(point.high)) {
                const bar = draw("line", { x1: x(point.x) + shift, x2: x(point.x) + shift, y1: isBelow ? box.bottom : y(point.low), y2: y(point.high) });
                bar.style.stroke = colour;
                svg.append(bar);
            }
            svg.append(mark(i, x(point.x) + shift, y(point.y), 4, colour, point.title));
        }
    });
    return make("div", {}, legend(series.map((one) => one.name)), make("div", { class: "wide" }, svg));
}

/* cells: [{row, column, value, title}]; the larger a value, the denser its cell. */
function heat({ cells, rowTitle, columnTitle, about, isLog = false, colour = "var(--heat)", show = short }) {
    const rows = [...new Set(cells.map((cell) => cell.row))].sort((a, b) => a - b);
    const columns = [...new Set(cells.map((cell) => cell.column))].sort((a, b) => a - b);
    const values = cells.map((cell) => cell.value).filter((value) => value !== null && Number.isFinite(value) && (!isLog || value > 0));
    if (values.length === 0) return make("p", { class: "soft" }, "No values to draw.");
    const side = Math.max(6, Math.min(26, (WIDTH - 60) / columns.length)), tall = Math.max(8, Math.min(24, 600 / rows.length));
    const left = 52, top = 24, height = top + rows.length * tall + 74, low = Math.min(...values), high = Math.max(...values);
    const svg = frame(height, about);
    if (left + columns.length * side > WIDTH) svg.setAttribute("viewBox", `0 0 ${left + columns.length * side} ${height}`);
    const dense = (value) => high === low ? 1 : isLog ? 0.06 + 0.94 * Math.log(value / low) / Math.log(high / low) : 0.03 + 0.97 * (value - Math.min(low, 0)) / (high - Math.min(low, 0));
    const rowAt = new Map(rows.map((row, i) => [row, i])), columnAt = new Map(columns.map((column, i) => [column, i]));
    for (const cell of cells) {
        const place = { x: left + columnAt.get(cell.column) * side, y: top + rowAt.get(cell.row) * tall, width: side, height: tall };
        const isDrawn = cell.value !== null && Number.isFinite(cell.value) && (!isLog || cell.value > 0);
        const node = draw("rect", { class: isDrawn ? "cell" : "none", ...place });
        if (isDrawn) {
            node.style.fill = colour;
            node.style.fillOpacity = dense(cell.value);
        }
        node.append(draw("title", {}, cell.title));
        svg.append(node);
    }
    const every = (n, size, least) => Math.max(1, Math.ceil(least / size)) || n;
    rows.forEach((row, i) => { if (i % every(rows.length, tall, 13) === 0) svg.append(draw("text", { class: "soft", x: left - 6, y: top + (i + 0.5) * tall + 4, "text-anchor": "end" }, String(row))); });
    columns.forEach((column, i) => { if (i % every(columns.length, side, 26) === 0) svg.append(draw("text", { class: "soft", x: left + (i + 0.5) * side, y: top + rows.length * tall + 16, "text-anchor": "middle" }, String(column))); });
    svg.append(draw("text", { x: 0, y: 12 }, rowTitle));
    svg.append(draw("text", { class: "soft", x: left, y: top + rows.length * tall + 34 }, columnTitle));
    const at = top + rows.length * tall + 48;
    [0, 1, 2, 3, 4].forEach((n) => {
        const value = isLog ? low * (high / low) ** (n / 4) : Math.min(low, 0) + (high - Math.min(low, 0)) * n / 4;
        const node = draw("rect", { class: "cell", x: left + n * 88, y: at, width: 24, height: 12 });
        node.style.fill = colour;
        node.style.fillOpacity = dense(value);
        svg.append(node, draw("text", { class: "soft", x: left + n * 88 + 29, y: at + 11 }, show(value, 2)));
    });
    return make("div", { class: "wide" }, svg);
}

function figure(about, ...nodes) {
    return make("figure", {}, make("figcaption", {}, about), ...nodes);
}

/* A choice of one of several charts, remembered by nobody; all are drawn, one is shown, so that print has the shown one. */
function choose(label, names, build) {
    const place = make("div");
    const show = (i) => place.replaceChildren(build(i));
    show(0);
    if (names.length < 2) return place;
    const select = make("select", { onchange: (event) => show(Number(event.target.value)) }, ...names.map((name, i) => make("option", { value: i }, name)));
    return make("div", {}, make("label", { class: "choice" }, label + " ", select), place);
}

/* ---------------------------------------------------------------- measures */

const MEASURES = [
    { name: "kl", title: "KL to the clean model, nats a token", yLog: true, show: short },
    { name: "pia", title: "PIA, right answers in any format", show: percent },
    { name: "ica", title: "ICA, right answers in the asked format", show: percent },
    { name: "ppl", title: "Perplexity", show: short },
    { name: "top1", title: "Same likeliest token as the clean model", show: percent },
    { name: "tv", title: "Total variation to the clean model", show: short },
    { name: "flips", title: "Flips: questions that became right or wrong", show: percent },
    { name: "route_changed", title: "Tokens and layers with another set of experts", show: percent },
    { name: "reply_tokens", title: "Tokens in a reply", show: short },
].filter((measure) => changed.some((run) => run.values[measure.name] && run.values[measure.name].value !== null));

const cleanValue = (name) => (clean && clean.values[name] ? clean.values[name].value : null);
const baseOf = (name) => (cleanValue(name) === null || name === "kl" || name === "tv" || name === "flips" ? null : { y: cleanValue(name), name: "clean" });
const range = (value, show) => (value ? show(value.value) + (value.low === null || value.low === undefined ? "" : ` (${show(value.low)} to ${show(value.high)})`) : "");

/* ---------------------------------------------------------------- what it says first */

function head() {
    page.append(make("h1", {}, manifest.suite === "paper" ? "The paper's experiments on this model" : "What errors in weights do to answers"));
    const words = [manifest.model, manifest.architecture, manifest.n_layers && `${manifest.n_layers} layers`,
        manifest.n_experts && `${manifest.n_experts_used} of ${manifest.n_experts} experts a token`].filter(Boolean);
    page.append(make("p", {}, words.join(" · ")));
    const of = [manifest.n_questions && manifest.task ? `${Number(manifest.n_questions).toLocaleString("en")} questions of ${manifest.task}` : "",
        manifest.text ? `${manifest.n_windows} windows${Number(manifest.ctx_size) > 0 ? ` of ${manifest.ctx_size} tokens` : ""} of ${manifest.text}` : ""].filter(Boolean).join("; ");
    page.append(make("p", { class: "soft" }, `Measured on ${of || "nothing"}. Moebius ${manifest.version || "?"}, begun ${manifest.begun || "?"}${manifest.ended ? "" : ", not finished: the runs below are those that are done"}.`));
    const list = make("ul", { class: "points" });
    for (const [name, words] of [["pia", "answers (PIA)"], ["ica", "answers in the asked format (ICA)"], ["nll", "the text's likelihood"]]) {
        const found = changed.map((run) => run.comparisons[name]).filter(Boolean);
        if (found.length === 0) continue;
        const count = (word) => found.filter((row) => String(row.verdict).startsWith(word)).length;
        list.append(make("li", {}, `By ${words}: ${count("worse")} of ${found.length} runs are worse than the clean model, ${count("better")} better, in ${count("no difference")} no difference is seen.`));
    }
    if (clean) {
        const shown = ["pia", "ica", "ppl"].filter((name) => clean.values[name]).map((name) => `${name === "ppl" ? "perplexity" : name.toUpperCase()} ${range(clean.values[name], name === "ppl" ? short : percent)}`);
        if (shown.length) list.append(make("li", {}, "The clean model: " + shown.join(", ") + "."));
    }
    const detectable = Number(manifest.detectable);
    if (Number(manifest.n_questions) > 0 && !(detectable > 0 && Number.isFinite(detectable))) list.append(make("li", {}, "If 5 % of the answers flip, these are too few questions to see a difference of PIA."));
    else if (detectable > 0) list.append(make("li", {}, `Smallest difference of PIA that this sweep would most likely see, if 5 % of the answers flip: ${points(detectable).replace("+", "")} points.`));
    const dead = pool(changed.filter((run) => run.values.dead && run.values.dead.value === 1));
    if (dead.length) list.append(make("li", {}, `No usable output: ${dead.slice(0, 5).map((group) => caption(group[0])).join("; ")}${dead.length > 5 ? ` and ${dead.length - 5} more` : ""}.`));
    page.append(list);
    page.append(make("p", { class: "soft" }, "Intervals are of 95 %. Verdicts are those of paired tests against the clean run, after Holm's correction over all runs of this file."));
}

/* ---------------------------------------------------------------- sections */

function allRuns() {
    const measures = ["pia", "ica", "kl", "ppl", "top1", "flips", "route_changed", "reply_tokens"].map((name) => MEASURES.find((measure) => measure.name === name)).filter(Boolean);
    const columns = [
        { title: "label", of: (run) => run.label },
        { title: "target", of: (run) => run.target || "(clean)" },
        { title: "error", of: (run) => run.error },
        { title: "bound", of: (run) => run.bound },
        { title: "projection", of: (run) => (run.projection === "all" ? null : run.projection) },
        { title: "seed", of: (run) => run.seed },
    ].filter((column) => runs.some((run) => column.of(run) !== null && column.of(run) !== undefined && column.of(run) !== ""));
    for (const measure of measures)
        columns.push({ title: measure.name, of: (run) => (run.values[measure.name] ? run.values[measure.name].value : null), show: (value, run) => range(run.values[measure.name], (number) => measure.show(number)) });
    for (const name of ["pia", "nll"])
        if (changed.some((run) => run.comparisons[name]))
            columns.push({ title: name === "pia" ? "answers" : "text", of: (run) => (run.comparisons[name] ? run.comparisons[name].verdict : null), kind: (run) => (run.comparisons[name] ? String(run.comparisons[name].verdict).split(" ")[0].replace("no", "") : "") });
    section("runs", "All runs", table("runs", columns, runs));
}

function byLayer() {
    const list = changed.filter((run) => layerOf(run) !== null && (run.places.length > 1 || !isMapped(run)));
    const single = list.length ? list : changed.filter((run) => layerOf(run) !== null);
    const layers = new Set(single.map(layerOf));
    if (layers.size < 2) return missing.push("sensitivity by layer: no errors in two layers or more, one layer a run");
    const kinds = [...new Set(single.map((run) => scopeOf(run)))];
    const node = section("layers", "Sensitivity by layer", make("p", {}, "Each run puts an error into one layer. The dashed line is the clean model. Layers are counted as in tensor names."));
    node.append(choose("Errors in", kinds, (kind) => {
        const of = single.filter((run) => scopeOf(run) === kinds[kind]);
        return choose("Measure", MEASURES.map((measure) => measure.title), (m) => {
            const measure = MEASURES[m];
            const names = [...new Set(of.map(condition))];
            const series = names.map((name) => ({
                name,
                points: pool(of.filter((run) => condition(run) === name)).map((group) => {
                    const value = figureOf(group, measure.name);
                    return value && { x: layerOf(group[0]), y: value.value, low: value.low, high: value.high, title: `${caption(group[0])}: ${range(value, measure.show)}` };
                }).filter(Boolean),
            }));
            const rows = series.flatMap((one) => one.points.map((point) => ({ ...point, name: one.name })));
            return figure(`${measure.title}, errors in ${kinds[kind]}.`, chart({ series, xTitle: "layer", yTitle: measure.title, yLog: measure.yLog && rows.every((row) => row.y > 0), yShow: measure.show === percent ? percentTick : short, whole: true, base: baseOf(measure.name) }),
                under("The numbers", table("layers-" + measure.name, [{ title: "layer", of: (row) => row.x }, { title: "error", of: (row) => row.name }, { title: measure.name, of: (row) => row.y }, { title: "low", of: (row) => row.low }, { title: "high", of: (row) => row.high }], rows)));
        });
    }));
}

/* What a target is besides its layer, in the words of the selection. */
const scopeOf = (run) => (run.target || "").replace(/\b(moe-)?layers?=\S+/g, "").replace(/\s+/g, " ").trim() || "the whole layer";
const isMapped = (run) => run.places.length === 1 && run.places[0].expert !== undefined && /experts?=\d+/.test(run.target || "");

function byExpert() {
    const single = changed.filter((run) => run.places.length === 1 && run.places[0].expert !== undefined && run.values.kl && run.values.kl.value !== null);
    const names = [...new Set(single.map(condition))].filter((name) => single.filter((run) => condition(run) === name).length > 1);
    if (names.length === 0) return missing.push("layer x expert: no runs that change one expert and measure KL");
    const node = section("experts", "Sensitivity by expert", make("p", {}, "KL to the clean model that an error in this expert causes, for one unit of error: divided by the square of its relative norm, since KL grows with the square. The stronger the colour, the more sensitive; the scale is logarithmic."));
    node.append(choose("Error", names, (n) => {
        const groups = pool(single.filter((run) => condition(run) === names[n]));
        const rows = groups.map((group) => {
            const kl = figureOf(group, "kl"), norm = figureOf(group, "norm");
            const isUnit = norm !== null && norm.value > 0;
            return { ...group[0].places[0], kl: kl.value, norm: isUnit ? norm.value : null, value: isUnit ? kl.value / norm.value ** 2 : kl.value };
        });
        return figure(`KL per unit of error, ${names[n]}.`, heat({
            cells: rows.map((row) => ({ row: row.layer, column: row.expert, value: row.value, title: `layer ${row.layer}, expert ${row.expert}: ${short(row.value)} (KL ${short(row.kl)}, relative norm ${short(row.norm)})` })),
            rowTitle: "layer", columnTitle: "expert", about: "KL per unit of error by layer and expert", isLog: true,
        }), under("The numbers", table("experts", [{ title: "layer", of: (row) => row.layer }, { title: "expert", of: (row) => row.expert }, { title: "KL per unit", of: (row) => row.value }, { title: "KL", of: (row) => row.kl }, { title: "relative norm", of: (row) => row.norm }], rows)));
    }));
}

function activation() {
    const load = rowsOf("load").filter((row) => clean && row.run === clean.id);
    if (load.length === 0) return missing.push("use of experts: no routing in the clean run");
    const total = new Map();
    for (const row of load) total.set(row.layer, (total.get(row.layer) || 0) + row.n);
    const rows = load.map((row) => ({ ...row, share: total.get(row.layer) ? row.n / total.get(row.layer) : 0 }));
    const node = section("use", "Use of experts", make("p", {}, "Where the router of the clean model sends tokens, on the text and questions of this sweep."));
    node.append(figure("Share of a layer's routed tokens that each expert gets.", heat({
        cells: rows.map((row) => ({ row: row.layer, column: row.expert, value: row.share, title: `layer ${row.layer}, expert ${row.expert}: ${percent(row.share)}, ${short(row.n)} tokens, mean gate weight ${short(row.gate)}` })),
        rowTitle: "layer", columnTitle: "expert", about: "share of tokens by layer and expert", colour: "var(--cool)", show: percentTick,
    })));
    const layers = [...total.keys()].sort((a, b) => a - b);
    node.append(choose("Histogram of layer", layers.map(String), (i) => {
        const of = rows.filter((row) => row.layer === layers[i]).sort((a, b) => b.n - a.n);
        const height = 240, box = { left: 64, right: WIDTH - 12, top: 26, bottom: height - 48 };
        const svg = frame(height, `tokens by expert of layer ${layers[i]}, most used first`);
        const y = scale(of.map((row) => row.n), box.bottom, box.top, { zero: true }), width = (box.right - box.left) / of.length;
        const x = () => 0;
        x.ticks = [];
        axes(svg, x, y, box, { xTitle: "experts, most used first", yTitle: "tokens" });
        of.forEach((row, k) => {
            const bar = draw("rect", { x: box.left + k * width + width * 0.1, y: y(row.n), width: width * 0.8, height: Math.max(0, box.bottom - y(row.n)) });
            bar.style.fill = "var(--cool)";
            bar.append(draw("title", {}, `expert ${row.expert}: ${short(row.n)} tokens`));
            svg.append(bar);
            if (width >= 18) svg.append(draw("text", { class: "soft", x: box.left + (k + 0.5) * width, y: box.bottom + 16, "text-anchor": "middle" }, String(row.expert)));
        });
        return figure(`Tokens that layer ${layers[i]} sends to each expert.`, make("div", { class: "wide" }, svg));
    }));
    const routing = rowsOf("routing").filter((row) => row.run === clean.id);
    if (routing.length)
        node.append(table("use", ["layer", "n_tokens", "utilisation", "entropy", "gini", "imbalance"].map((name) => ({ title: { n_tokens: "tokens" }[name] || name, of: (row) => row[name], show: name === "utilisation" ? percent : null })), routing),
            make("p", { class: "soft" }, "Utilisation: share of experts used at all. Entropy of the load, 1 is even. Gini: 0 is even. Imbalance: the largest load over the mean."));
}

function formats() {
    const groups = pool(changed).filter((group) => figureOf(group, "ica") && figureOf(group, "pia"));
    if (groups.length === 0) return missing.push("ICA beside PIA: no answers were scored");
    const names = [...new Set(groups.map((group) => group[0].error))];
    const series = names.map((name) => ({
        name,
        points: groups.filter((group) => group[0].error === name).map((group) => {
            const ica = figureOf(group, "ica"), pia = figureOf(group, "pia");
            return { x: pia.value, y: ica.value, low: ica.low, high: ica.high, title: `${caption(group[0])}: PIA ${percent(pia.value)}, ICA ${percent(ica.value)}` };
        }),
    }));
    section("format", "Format beside content", make("p", {}, "PIA asks whether the number is right, ICA also whether it stands in the asked format. Points far below the others lose the format before the content."),
        figure("ICA by PIA, one point a target and bound.", chart({ series, xTitle: "PIA", yTitle: "ICA", xShow: percentTick, yShow: percentTick, join: false })),
        under("The numbers", table("format", [{ title: "run", of: (group) => caption(group[0]) }, { title: "PIA", of: (group) => figureOf(group, "pia").value, show: percent }, { title: "ICA", of: (group) => figureOf(group, "ica").value, show: percent },
            { title: "PIA - ICA", of: (group) => figureOf(group, "pia").value - figureOf(group, "ica").value, show: points }], groups)));
}

function shift() {
    const routing = rowsOf("routing").filter((row) => clean && row.run !== clean.id && row.changed !== null && runById.has(row.run));
    if (routing.length === 0) return missing.push("routing shift: no runs with routing");
    const listed = pool([...new Set(routing.map((row) => runById.get(row.run)))]).sort((a, b) => most(b) - most(a));
    function most(group) { return Math.max(...routing.filter((row) => row.run === group[0].id).map((row) => row.changed)); }
    const top = listed.slice(0, COLOURS);
    const series = top.map((group) => ({ name: caption(group[0]), points: routing.filter((row) => row.run === group[0].id).map((row) => ({ x: row.layer, y: row.changed, low: null, high: null, title: `${caption(group[0])}, layer ${row.layer}: ${percent(row.changed)}` })) }));
    section("shift", "Routing shift", make("p", {}, "Does the router move around damage? Share of tokens whose set of experts in a layer differs from the clean run's."),
        figure(`The ${top.length} runs with the largest shift.`, chart({ series, xTitle: "layer", yTitle: "tokens with another set of experts", yShow: percentTick, zero: true, whole: true })),
        ...flows(),
        under("All runs and layers", table("shift", [{ title: "run", of: (row) => caption(runById.get(row.run)) }, { title: "seed", of: (row) => runById.get(row.run).seed }, { title: "layer", of: (row) => row.layer }, { title: "changed", of: (row) => row.changed, show: percent }, { title: "load moved", of: (row) => row.moved, show: percent }, { title: "entropy", of: (row) => row.entropy }, { title: "gini", of: (row) => row.gini }], routing)));
}

/* Of each run and layer with changed experts: how many tokens left them, and who got these. */
function flows() {
    const groups = new Map();
    for (const row of rowsOf("flow").filter((one) => runById.has(one.run))) {
        const key = `${row.run} ${row.layer}`;
        if (!groups.has(key)) groups.set(key, { run: runById.get(row.run), layer: row.layer, experts: [], left: 0, to: [] });
        const group = groups.get(key);
        if (row.is_changed) { group.experts.push(row.expert); group.left += row.n_left; }
        if (row.n_got > 0) group.to.push(row);
    }
    if (groups.size === 0) return [];
    const all = [...groups.values()], moved = all.filter((group) => group.left > 0).sort((a, b) => b.left - a.left);
    const list = (numbers) => (numbers.length > 8 ? `${numbers.length} experts` : numbers.join(", "));
    const to = (group) => [...group.to].sort((a, b) => b.n_got - a.n_got).slice(0, 4).map((row) => `${row.expert}: ${percent(row.n_got / group.left)}`).join(", ");
    return [make("p", {}, `Where the load of changed experts went: tokens left them in ${moved.length} of ${all.length} cases (a run and a layer with changed experts). An error in a layer alone moves nothing in it, since its router sees what earlier layers made; dropping an expert does.`),
        moved.length === 0 ? null : under("Where load went", table("flow", [{ title: "run", of: (group) => caption(group.run) }, { title: "seed", of: (group) => group.run.seed }, { title: "layer", of: (group) => group.layer },
            { title: "changed experts", of: (group) => list(group.experts) }, { title: "tokens that left", of: (group) => group.left }, { title: "went to expert", of: to }], moved))];
}

const boundNumber = (run) => { const found = /^([\d.eE+-]+)\s*%$/.exec(run.bound || ""); return found ? Number(found[1]) : null; };

/* Quality by what 'at' says of a group: its bound, or its bits a weight. */
function quality({ id, heading, xTitle, at, xLog, isOneEnough, none }) {
    const groups = pool(changed).filter((group) => Number.isFinite(at(group)));
    const sweeps = new Map();
    for (const group of groups) {
        const key = (group[0].label ? group[0].label + ": " : "") + group[0].target + ", " + group[0].error;
        if (!sweeps.has(key)) sweeps.set(key, []);
        sweeps.get(key).push(group);
    }
    const kept = [...sweeps].filter(([, list]) => isOneEnough || new Set(list.map(at)).size > 1);
    if (kept.length === 0) return missing.push(none);
    const parts = [];
    for (let i = 0; i < kept.length; i += COLOURS) parts.push(kept.slice(i, i + COLOURS));
    const node = section(id, heading);
    node.append(choose("Measure", MEASURES.map((measure) => measure.title), (m) => choose("Targets", parts.map((part) => part.map(([name]) => name).slice(0, 2).join("; ") + (part.length > 2 ? ` and ${part.length - 2} more` : "")), (p) => {
        const measure = MEASURES[m];
        const series = parts[p].map(([name, list]) => ({
            name,
            points: list.map((group) => {
                const value = figureOf(group, measure.name);
                return value && { x: at(group), y: value.value, low: value.low, high: value.high, title: `${caption(group[0])}: ${range(value, measure.show)}` };
            }).filter(Boolean),
        }));
        const rows = series.flatMap((one) => one.points.map((point) => ({ ...point, name: one.name })));
        return figure(`${measure.title}, by ${xTitle}.`, chart({ series, xTitle, yTitle: measure.title, xLog, yLog: measure.yLog && rows.every((row) => row.y > 0), yShow: measure.show === percent ? percentTick : short, base: baseOf(measure.name) }),
            under("The numbers", table(id + "-" + measure.name, [{ title: "target, error", of: (row) => row.name }, { title: xTitle, of: (row) => row.x }, { title: measure.name, of: (row) => row.y }, { title: "low", of: (row) => row.low }, { title: "high", of: (row) => row.high }], rows)));
    })));
}

function bound() {
    quality({ id: "bound", heading: "Bound against quality", xTitle: "bound, % of the mean abs weight", at: (group) => boundNumber(group[0]), xLog: true, isOneEnough: false, none: "quality by bound: no target has two bounds" });
}

/* A codec of fixed bits is one point. */
function rate() {
    quality({ id: "rate", heading: "Rate against quality", xTitle: "bits a weight", at: (group) => (figureOf(group, "bits") || {}).value, xLog: false, isOneEnough: true, none: "quality by bits a weight: no run has a codec's error" });
}

/* One row a place, bound and measure; the errors beside each other. */
function paper() {
    const all = rowsOf("paper");
    if (all.length === 0) return;
    const node = section("paper", "Beside the paper", make("p", {}, "The paper (arXiv:2509.07727) measured Moonlight-16B-A3B with normal noise; places are scaled to this model's depth. Each figure is the difference to the clean model in points; the interval is ours. A verdict is about both intervals, the paper's taken as of 100 questions: agree, they overlap on one side of zero; disagree, they do not overlap; else n is too small to tell."));
    const score = (value) => (value === null || value === undefined ? "" : percent(value));
    const change = (row) => (row.ours === null || row.ours_clean === null ? "" : points(row.ours - row.ours_clean) + (row.low === null ? "" : ` (${points(row.low)} to ${points(row.high)})`) + (row.agrees ? `, ${row.agrees}` : ""));
    for (const part of [...new Set(all.map((row) => row.part))]) {
        const groups = new Map();
        for (const row of all.filter((one) => one.part === part)) {
            const key = JSON.stringify([row.place, row.bound, row.name]);
            if (!groups.has(key)) groups.set(key, { ...row, by: {} });
            groups.get(key).by[row.error] = row;
        }
        const rows = [...groups.values()], errors = [...new Set(all.filter((row) => row.part === part).map((row) => row.error))];
        node.append(make("h3", {}, part));
        node.append(table("paper-" + part, [
            { title: "place", of: (row) => row.place }, { title: "bound", of: (row) => row.bound }, { title: "measure", of: (row) => String(row.name).toUpperCase() },
            { title: "paper", of: (row) => row.paper, show: score },
            { title: "its difference", of: (row) => (row.paper === null || row.paper_clean === null ? null : row.paper - row.paper_clean), show: (value) => (value === null ? "" : points(value)) },
            ...errors.map((error) => ({ title: error, of: (row) => (row.by[error] && row.by[error].ours !== null ? row.by[error].ours - row.by[error].ours_clean : null), show: (value, row) => (row.by[error] ? change(row.by[error]) : "") })),
        ], rows, true));
    }
}

function repeat() {
    const rows = Object.entries(manifest).map(([key, value]) => ({ key, value }));
    const node = section("repeat", "To repeat this");
    if (manifest.command) node.append(make("pre", {}, manifest.command));
    node.append(table("manifest", [{ title: "what", of: (row) => row.key }, { title: "value", of: (row) => row.value, long: true }], rows));
    node.append(make("p", {}, make("button", { type: "button", class: "save", onclick: () => save("report.json", JSON.stringify(data, null, 1) + "\n", "application/json") }, "Save all numbers of this page as JSON"),
        " All tables of the file, questions included: ", make("code", {}, "moebius report RESULTS.db -o report.json"), " or ", make("code", {}, "-o FOLDER/ "), " (CSV)."));
    if (missing.length) node.append(make("p", { class: "soft" }, "Not in this file: " + missing.join("; ") + "."));
}

head();
const nav = make("nav", { "aria-label": "Sections" });
page.append(nav);
paper();
byLayer();
byExpert();
bound();
rate();
formats();
activation();
shift();
allRuns();
repeat();
nav.append(make("ul", {}, ...sections.map(([id, title]) => make("li", {}, make("a", { href: "#" + id }, title)))));
document.title = `Moebius: ${manifest.suite === "paper" ? "the paper's experiments" : "a sweep"} on ${manifest.model || "a model"}`;
