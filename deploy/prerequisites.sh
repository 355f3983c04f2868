# What ./run and ./test have in common: talking, asking, installing what is missing, finding Rust.
# Sourced by bash; expects `set -euo pipefail` and the caller's directory to be the repository's root.

RUST_WANTED=1.95

# ASSUME_YES=1 (from --yes) or CI=true install without asking.
: "${ASSUME_YES:=0}"
if [[ "${CI:-}" == true ]]; then ASSUME_YES=1; fi

say() { printf '== %s\n' "$*"; }
die() { printf '\nstopped: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The numbers decide, not the text: 1.100 is newer than 1.95.
at_least() { [[ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" == "$2" ]]; }

ask() {
  if [[ "$ASSUME_YES" == 1 ]]; then return 0; fi
  [[ -t 0 ]] || die "$1: nobody is here to answer. Run it again with --yes."
  local answer
  read -r -p "$1 [Y/n] " answer
  [[ -z "$answer" || "$answer" == [yYjJ]* ]]
}

as_root() {
  if [[ "$(id -u)" == 0 ]]; then "$@"
  elif have sudo; then sudo "$@"
  else die "this needs root and there is no sudo. As root: $*"
  fi
}

apt_updated=0
# Installs Debian packages after asking. usage: install_packages "what for" package...
install_packages() {
  local why=$1; shift
  have apt-get || die "$why: please install what Debian calls: $*"
  say "missing, $why: $*"
  ask "Install these Debian packages now?" || die "not installed. By hand: apt-get install --no-install-recommends $*"
  if [[ "$apt_updated" == 0 ]]; then as_root apt-get update -q; apt_updated=1; fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

# Packages from the list that dpkg does not have installed.
missing_packages() {
  local package
  for package in "$@"; do
    [[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" == ii* ]] || printf '%s\n' "$package"
  done
}

# Sets CARGO and RUSTC to a pair that is new enough: the caller's own first, rustup's, then Debian's.
find_rust() {
  local cargo rustc version
  for cargo in "${CARGO:-}" "$(command -v cargo || true)" "${HOME:-/nonexistent}/.cargo/bin/cargo" /usr/bin/cargo; do
    [[ -n "$cargo" && -x "$cargo" ]] || continue
    rustc="$(dirname "$cargo")/rustc"
    [[ -x "$rustc" ]] || continue
    version=$("$rustc" --version 2>/dev/null | cut -d ' ' -f 2) || continue
    if [[ -n "$version" ]] && at_least "${version%%-*}" "$RUST_WANTED"; then
      export CARGO=$cargo RUSTC=$rustc
      PATH="$(dirname "$cargo"):$PATH"
      RUST_VERSION=$version
      return 0
    fi
  done
  return 1
}

# A C compiler (for the TLS library and SQLite), Rust, and roots to fetch crates with.
need_build_tools() {
  local packages=()
  have cc || packages+=(gcc libc6-dev)
  [[ -e /usr/include/stdio.h || " ${packages[*]-} " == *libc6-dev* ]] || packages+=(libc6-dev)
  [[ -s /etc/ssl/certs/ca-certificates.crt ]] || packages+=(ca-certificates)
  find_rust || packages+=(rustc-web cargo-web)
  if [[ ${#packages[@]} != 0 ]]; then install_packages "to build Sallyport" "${packages[@]}"; fi
  find_rust || die "there is no Rust $RUST_WANTED or newer. Debian's rustc-web and cargo-web have it (bookworm-security), or rustup."
  say "Rust $RUST_VERSION ($CARGO), $(cc --version | head -n 1)"
}
