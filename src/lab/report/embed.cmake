# Writes OUT, a header with the page's files as strings: cmake -DIN=folder -DOUT=report_page.h -P embed.cmake
set(text "/* Made from the files in src/lab/report. */\n")
foreach(kind html css js)
  string(TOUPPER ${kind} name)
  file(READ ${IN}/page.${kind} bytes HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  string(APPEND text "static const char MB_PAGE_${name}[] = {${bytes}0};\n")
endforeach()
file(WRITE ${OUT} "${text}")
