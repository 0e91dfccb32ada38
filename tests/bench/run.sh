#!/bin/sh
# Measures Mailroot beside the bound of this machine and Postfix. Needs root and Debian's Postfix.
#
#   tests/bench/run.sh [OPTION]...
#
#   --full            sizes from 1 KiB to 1 MiB, 1, 20 and 100 sessions: hours, not minutes
#   --rounds N        measures each row N times, the programs in turn (3)
#   --rows WORDS      only rows whose name holds these words, such as "relay, open"
#   --rates-only      rates and their cost, nothing else
#   --percent N       sends that part of the usual number of messages (100)
#   --slow-disk MS    makes every sync of every program take that much longer
#   --markdown        writes tables in Markdown
#   --directory DIR   where the programs keep their mail (/var/tmp); on the disk to be measured
#
# With MAILROOT_PROGRAMS=DIR the smtpd and smtpctl of that folder are measured, and none are built.
set -eu
case "${1:-}" in
    -h | --help) sed -n '2,16s/^# \{0,1\}//p' "$0" && exit 0 ;;
esac
. "$(dirname "$0")/prepare.sh"
exec "$bench" run "$@"
