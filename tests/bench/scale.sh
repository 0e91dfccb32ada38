#!/bin/sh
# Measures what Mailroot promises about large numbers. Needs root and Debian's Postfix.
#
#   tests/bench/scale.sh MEASUREMENT [OPTION]...
#
#   idle              ten thousand idle sessions
#   idle-tls          the same under TLS
#   deferred          a million deferred messages over ten thousand domains; minutes
#   dead              a hundred thousand messages for a host that says nothing, beside ordinary mail
#   large             a message of 100 MiB
#   list              smtpctl over 100,000 messages
#   slow-clients      slow senders beside ordinary mail
#   handshakes        a flood of handshakes beside ordinary mail
#   logins            wrong passwords of a user and of nobody
#   submit            sendmail, one message after the other, beside Postfix's
#
#   --percent N       that part of the usual number of messages (100)
#   --slow-disk MS    makes every sync take that much longer
#   --markdown        writes tables in Markdown
#   --directory DIR   where mail is kept (/var/tmp); on the disk to be measured
#
# The exit code is 1 when a limit is broken. With MAILROOT_PROGRAMS=DIR the smtpd and smtpctl of that folder are
# measured, and none are built.
set -eu
case "${1:-}" in
    idle | idle-tls | deferred | dead | large | list | slow-clients | handshakes | logins | submit) ;;
    *) sed -n '2,23s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
. "$(dirname "$0")/prepare.sh"
exec "$bench" "$@"
