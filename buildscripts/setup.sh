#!/usr/bin/env bash
# Installs what the tests need on a Debian machine with Go, and says what it installs. Nothing is started: the tests start
# each server themselves, on a free loopback port. Without the right to install it prints the one command to run.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
while read -r program package; do
  [[ -z ${program:-} || $program == \#* ]] && continue
  if [[ -z ${package:-} ]]; then
    package=$program
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  elif [[ $program == /* ]]; then
    compgen -G "$program" >/dev/null || missing+=("$package")
  else
    PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing+=("$package")
  fi
done < <(cat buildscripts/packages.txt buildscripts/*/packages.txt 2>/dev/null)

if ((${#missing[@]})); then
  sudo=""
  if [[ $(id -u) != 0 ]]; then
    if sudo -n true 2>/dev/null; then
      sudo="sudo -n"
    else
      echo "setup: these Debian packages are missing; run this once, then again what you ran:" >&2
      echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
      exit 1
    fi
  fi
  echo "setup: installing with apt: ${missing[*]}"
  # Debian starts a server as soon as it is installed unless this file says no; the tests want their own.
  guard=/usr/sbin/policy-rc.d
  if [[ ! -e $guard ]]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $guard >/dev/null
    $sudo chmod 755 $guard
    trap '$sudo rm -f "$guard"' EXIT
  fi
  log=$(mktemp)
  $sudo apt-get -o DPkg::Lock::Timeout=300 -qq update >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y --no-install-recommends install "${missing[@]}" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi

for dir in buildscripts/*/; do
  [[ -f $dir/package-lock.json ]] || continue
  stamp=$dir/node_modules/.installed
  if [[ ! -f $stamp || $dir/package-lock.json -nt $stamp ]]; then
    echo "setup: installing with npm: $(node -p "Object.entries(require('./$dir/package.json').dependencies).map(e=>e.join('@')).join(' ')")"
    npm ci --prefix "$dir" --no-audit --no-fund --loglevel=error
    touch "$stamp"
  fi
done
echo "setup: everything the tests need is installed"
