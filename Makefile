# The two commands of the README, and what CONTRIBUTING names. The build itself is CMake's.
.PHONY: all demo test check bench format clean

all:
	tools/setup.sh build
	cmake --preset release >/dev/null
	cmake --build --preset release --target moebius

demo: all
	tools/demo.sh

test:
	tools/setup.sh test
	tools/test.sh release

check:
	bash .ci/run

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build
