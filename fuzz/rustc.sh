#!/bin/sh
# A RUSTC_WRAPPER: compiles posthouse's own crates so that libFuzzer sees which branches run. Code that only drives
# them is left out. Dependencies are compiled as usual, so that they are shared with other builds. Stable Rust will do.
rustc=$1
shift
case " $* " in
*" --crate-name posthouse_fuzz "* | *" --crate-name posthouse_harness "*) ;;
*" --crate-name posthouse"*)
    exec "$rustc" "$@" -Cpasses=sancov-module -Ccodegen-units=1 \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$rustc" "$@"
