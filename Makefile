# The two commands of the README, and what CONTRIBUTING names. The build itself is CMake's.
.PHONY: all demo test check tidy format clean

all:
	tools/build.sh

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
