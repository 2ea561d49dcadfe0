#!/bin/sh
# The browser tests drive the system's Chromium; install it where the system's packages allow.
set -eu
if command -v chromium >/dev/null 2>&1 && fc-list 2>/dev/null | grep -qi 'noto.*cjk'; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium fontconfig fonts-noto-cjk g++ >/dev/null
  exit 0
fi
echo "Browser tests need Chromium and Noto CJK fonts. Install them with your system's packages," >&2
echo "for example: sudo apt-get install chromium fontconfig fonts-noto-cjk" >&2
exit 1
