# cmake --install: headers, both libraries, the program, moebius.pc, a CMake package, man pages, bash completion, licence.
include(CMakePackageConfigHelpers)
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/Moebius)

install(DIRECTORY include/moebius ${PROJECT_BINARY_DIR}/include/moebius DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h")
install(TARGETS moebius)
install(TARGETS moebius_static EXPORT MoebiusStatic)
install(EXPORT MoebiusStatic NAMESPACE moebius:: DESTINATION ${package_folder} FILE MoebiusStaticTargets.cmake)
if(MB_SHARED)
  install(TARGETS moebius_shared EXPORT MoebiusShared)
  install(EXPORT MoebiusShared NAMESPACE moebius:: DESTINATION ${package_folder} FILE MoebiusSharedTargets.cmake)
endif()

configure_package_config_file(cmake/MoebiusConfig.cmake.in MoebiusConfig.cmake INSTALL_DESTINATION ${package_folder})
# While the major number is 0, a new minor one may change the API.
write_basic_package_version_file(MoebiusConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/MoebiusConfig.cmake ${PROJECT_BINARY_DIR}/MoebiusConfigVersion.cmake
  DESTINATION ${package_folder})

# Folders in moebius.pc are relative to the file, so that the prefix may be chosen, and moved, after the build.
file(RELATIVE_PATH MB_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
foreach(dir INCLUDEDIR LIBDIR)
  set(MB_PC_${dir} ${CMAKE_INSTALL_${dir}})
  if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_${dir}}")
    set(MB_PC_${dir} "\${prefix}/${CMAKE_INSTALL_${dir}}")
  endif()
endforeach()
configure_file(cmake/moebius.pc.in moebius.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/moebius.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(DIRECTORY ${PROJECT_BINARY_DIR}/cli/manual/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 FILES_MATCHING PATTERN "*.1")
install(FILES ${PROJECT_BINARY_DIR}/cli/manual/moebius.bash RENAME moebius
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
