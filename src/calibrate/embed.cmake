# Writes OUT, a header with the calibration text as a string: cmake -DIN=default.jsonl -DOUT=default_text.h -P embed.cmake
file(READ ${IN} bytes HEX)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
file(WRITE ${OUT} "/* Made from src/calibrate/default.jsonl. */\nstatic const char MB_DEFAULT_TEXT[] = {${bytes}0};\n")
