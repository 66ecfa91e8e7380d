# Sourced by the programs beside it, which set $root first. Makes $root/.venv, builds and installs mdring into it
# (editable), and does so again only when what is built from, or the Python beneath, has changed:
#
#     root=$(dirname "$(dirname "$(readlink -f "$0")")")
#     . "$root/bin/environment.sh"
#     prepare_environment          # or: prepare_environment test, with what the tests need
#     exec "$venv/bin/mdring" …
#
# PYTHON names the interpreter to use, CC the compiler. POSIX sh.

venv=$root/.venv
log=$venv/build.log

say() {
    printf 'mdring: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# prepare_environment [EXTRA]: an optional dependency group of pyproject.toml.
prepare_environment() {
    extra=${1:-}
    if is_prepared; then
        return
    fi
    find_python
    # Two programs that are started at once must not build into each other. The lock belongs to the open file, so it
    # outlives the process that takes it, and ends when the descriptor is closed here (or with this shell).
    exec 9<"$root/bin/environment.sh"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    if ! is_prepared; then
        build
    fi
    exec 9<&-
}

is_prepared() {
    [ -x "$venv/bin/python" ] && [ -f "$(stamp_of "$extra")" ] && [ "$(cat "$(stamp_of "$extra")")" = "$(fingerprint)" ] &&
        { [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity "$venv/bin/python")" ]; }
}

stamp_of() {
    printf '%s/stamp%s' "$venv" "${1:+-$1}"
}

# All that decides what a build gives: where it lies, the Python, how it is made, and the sources that are compiled.
fingerprint() {
    (
        cd "$root"
        pwd
        identity "$venv/bin/python"
        {
            echo bin/build_extensions.py bin/environment.sh pyproject.toml
            find mdring adapters -name '*.pyx' -o -name '*.pxd' -o -name '*.h'
        } | LC_ALL=C sort | xargs sha256sum
    ) | sha256sum
}

# The same for an interpreter and for the environments that were made with it.
identity() {
    "$1" -S -c 'import sys; print(sys.base_exec_prefix, *sys.version_info[:2])'
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or newer"
        python=$PYTHON
        return
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if is_new_enough "$python"; then
            return
        fi
    done
    fail "there is no Python 3.11 or newer; install one (Debian: python3 python3-venv python3-dev; Fedora: python3" \
        "python3-devel), or name one: PYTHON=/path/to/python3 $0"
}

is_new_enough() {
    "$1" -S -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

build() {
    check_tools
    if ! [ -x "$venv/bin/python" ] || [ "$(identity "$python")" != "$(identity "$venv/bin/python")" ]; then
        say "making .venv with $("$python" -V)"
        rm -rf "$venv"
        output=$("$python" -m venv "$venv" 2>&1) || fail "cannot make $venv: $output"
    fi
    if [ -f "$(stamp_of test)" ]; then
        extra=test # it was there once; whoever asked for it will ask again
    fi
    rm -f "$venv"/stamp*
    say "building and installing into .venv (about a minute; log in $log)"
    # What Cython made of another version of a source must not be taken for new because of its time.
    (cd "$root" && find mdring adapters -name '*.pyx' | sed 's/pyx$/c/' | xargs rm -f)
    if ! PIP_USER=0 "$venv/bin/python" -m pip install --disable-pip-version-check --editable "$root${extra:+[$extra]}" \
        >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        fail "cannot build or install mdring; the lines above are the end of $log"
    fi
    put_on_path
    fingerprint >"$(stamp_of '')"
    if [ -n "$extra" ]; then
        fingerprint >"$(stamp_of "$extra")"
    fi
}

# An editable install has an import hook that is asked last. A script in the folder that contains the clone would find
# the clone before, for a folder of that name is a package without __init__.py. A real one that is on the path wins over
# it, wherever on the path it is; and in a folder of its own, it does not bring adapters/ and benchmarks/ along.
put_on_path() {
    mkdir -p "$venv/path"
    ln -sfn "$root/mdring" "$venv/path/mdring"
    printf '%s\n' "$venv/path" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mdring.pth"
}

# What pip would only complain about after a long while, and in many words.
check_tools() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$("$python" -V) has no venv module; install it (Debian: python3-venv)"
    header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
    [ -f "$header" ] || fail "the headers of $("$python" -V) are missing; install them (Debian: python3-dev; Fedora: python3-devel)"
    if [ -n "${CC:-}" ]; then
        command -v "${CC%% *}" >/dev/null || fail "CC=$CC is no compiler that could be found"
        return
    fi
    for compiler in "$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("CC").split()[0])')" cc gcc clang; do
        if command -v "$compiler" >/dev/null; then
            export CC="$compiler"
            return
        fi
    done
    fail "there is no C compiler; install one (Debian: build-essential; Fedora: gcc)"
}
