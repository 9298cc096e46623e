# The library that people link: all parts in one, libmoebius.a and libmoebius.so.
# MB_PARTS: the parts, as CMakeLists.txt lists them.
set(MB_OBJECTS)
foreach(part ${MB_PARTS})
  list(APPEND MB_OBJECTS $<TARGET_OBJECTS:mb_${part}>)
endforeach()

# mb_library(TARGET TYPE): one form of it.
function(mb_library target type)
  add_library(${target} ${type} ${MB_OBJECTS})
  target_link_libraries(${target} PRIVATE Threads::Threads
    PkgConfig::JANSSON PkgConfig::PCRE2 PkgConfig::UTF8PROC PkgConfig::XXHASH PkgConfig::SQLITE PkgConfig::URING m ${CMAKE_DL_LIBS})
  target_include_directories(${target} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME moebius LINKER_LANGUAGE C)
endfunction()

mb_library(moebius_static STATIC)
if(MB_SHARED)
  mb_library(moebius_shared SHARED)
  # SONAME libmoebius.so.0: programs that were linked with any 0.x find it.
  set_target_properties(moebius_shared PROPERTIES EXPORT_NAME moebius
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/moebius.map)
  target_link_options(moebius_shared PRIVATE
    -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/moebius.map -Wl,--no-undefined)
endif()
