# The commands of the README, and what CONTRIBUTING names. The build itself is CMake's.
# demo, test and check install what they lack (tools/setup.sh), so that they work on a bare machine. all does not.
.PHONY: all setup demo test check tidy format clean

all:
	tools/build.sh

setup:
	tools/setup.sh test

demo:
	tools/demo.sh

test:
	tools/test.sh

check:
	bash .ci/run

tidy:
	tools/tidy.sh

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build
