# Sourced by the rig's scripts. Everything that is fetched or built once lies in $RIG, outside the
# checkout, so that a fresh clone on the same machine finds it again.
RIG=${TAHINI_RIG:-${XDG_CACHE_HOME:-$HOME/.cache}/tahini-rig}
mkdir -p "$RIG"

say() { echo "[rig] $*" >&2; }

# need PACKAGE… : installs the Debian packages that are missing; root only, quiet when there is
# nothing to do.
need() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" != 0 ]; then
    say "expected the Debian packages ${missing[*]}, found them missing; install them: sudo apt-get install ${missing[*]}"
    return 1
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o DPkg::Lock::Timeout=300 update >&2
  apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}" >/dev/null
}
