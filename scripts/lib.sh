# Shared by scripts/demo and scripts/test: what must be on the machine. Sourced, not run.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C.UTF-8

export CALLER_FOLDER=${CALLER_FOLDER:-$PWD} # where relative paths on the command line begin
checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cd -- "$checkout"

complain() { printf '%s\n' "$*" >&2; }

# Loop devices, udev and mounts need root.
become_root() {
    [[ $EUID = 0 ]] && return
    command -v sudo >/dev/null || {
        complain "This needs root (loop devices, udev, mounts), and there is no sudo: run it as root."
        exit 77
    }
    complain "This needs root (loop devices, udev, mounts): asking sudo."
    exec sudo --preserve-env=IMMICH_USB_BACKUP_CACHE,CI,CALLER_FOLDER -- "$checkout/scripts/${0##*/}" "$@"
}

# runs_on NAME... : whether the system is one of these, or made from one.
runs_on() {
    local ID='' ID_LIKE='' name
    # shellcheck source=/dev/null
    [[ ! -r /etc/os-release ]] || . /etc/os-release
    for name in "$@"; do
        [[ " $ID $ID_LIKE " != *" $name "* ]] || return 0
    done
    return 1
}
is_debian() { runs_on debian ubuntu; }

# need_packages PACKAGE... : install those that are missing; elsewhere than on Debian and Ubuntu, name them.
need_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ! is_debian || ! command -v apt-get >/dev/null; then
        complain "This script installs what it needs on Debian and Ubuntu only. Here, install what these packages"
        complain "are called on your system, and run it again: ${missing[*]}"
        exit 69
    fi
    echo "Installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# venv_stamp PYTHON EXTRA : a name for what is installed, by all that it depends on.
venv_stamp() {
    printf '%s %s %s' "$2" "$("$1" --version)" "$checkout" | cat - pyproject.toml | sha256sum | cut -c 1-16
}

# need_venv EXTRA : a Python environment in .venv with this project and its dependencies; the tests' has all.
need_venv() {
    local python stamp
    if ! find_python >/dev/null && is_debian; then
        need_packages python3 python3-venv
        find_python >/dev/null || need_packages python3.11 python3.11-venv
    fi
    python=$(find_python) || {
        complain "Python 3.11 or newer with venv is missing."
        exit 69
    }
    stamp=$(venv_stamp "$python" "$1")
    [[ -e .venv/stamp-$stamp || -e .venv/stamp-$(venv_stamp "$python" '[test]') ]] && return
    echo "Setting up Python's packages in .venv"
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/python -m pip install -qq --disable-pip-version-check --editable ".$1"
    touch ".venv/stamp-$stamp"
}
