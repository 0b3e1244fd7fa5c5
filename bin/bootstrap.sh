# shellcheck shell=sh
# Sourced by the commands beside it. Sets `root`, the checkout, and `python`,
# that of its virtual environment, which `prepare` makes or brings up to date.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1
python=$root/.venv/bin/python

# prepare KIND: KIND is `run`, or `test` for the tools of development too.
prepare() {
    if [ -x "$python" ] && "$python" -I -S "$root/bin/make_venv.py" --check "$1" 2>/dev/null; then
        return
    fi
    find_python
    "$found" -I "$root/bin/make_venv.py" "$1" || exit
}

# Sets `found` to the newest Python that runs and can make virtual environments. That a
# command exists says little: a version manager's shim may stand for a version that is not installed.
find_python() {
    found='' found_version=0 bare=''
    for name in python3.14 python3.13 python3.12 python3.11 python3; do
        version=$("$name" -I -c 'import sys; print("%d%02d" % sys.version_info[:2])' 2>/dev/null) || continue
        [ "$version" -ge 311 ] || continue
        if ! "$name" -I -c 'import ensurepip, venv' 2>/dev/null; then
            bare=${bare:-python3.${version#3}}
        elif [ "$version" -gt "$found_version" ]; then
            found=$name found_version=$version
        fi
    done
    if [ -n "$found" ]; then
        return
    elif [ -n "$bare" ]; then
        echo "$bare cannot make virtual environments: install its modules venv and ensurepip (Debian, Ubuntu: apt-get install $bare-venv)" >&2
    else
        echo "Howdah needs Python 3.11 or newer, and none was found that runs (tried python3.14 to python3.11, and python3)" >&2
    fi
    exit 1
}
