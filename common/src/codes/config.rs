//! Codes of errors (`E`) and warnings (`W`) in configuration files.
//!
//! The hundreds tell where to look: 0 the text as such, 1 keys, 2 values, 3 names and networks, 4
//! what does not fit together.

super::codes! {
    /// Errors and warnings of the configuration.
    DIAGNOSTICS:

    "E0001": "A configuration file is larger than 1 MiB."; "It is probably another kind of file; put the right one back.";
    "E0002": "A control character or another invisible character stands in the file."; "Remove it, or write it as an escape in double quotes.";
    "E0003": "The file begins with a byte order mark."; "Save it as UTF-8 without one.";
    "E0004": "A line is indented so that it belongs to nothing."; "Give the keys of one section the same number of blanks, and more than the section's own line has.";
    "E0005": "A tab stands where blanks belong; readers of YAML do not agree on its width."; "Indent with blanks.";
    "E0006": "Something is left over behind a value."; "Put quotes around the whole value, or begin a new line.";
    "E0007": "The file uses a part of YAML that configuration files do without: anchors, aliases, tags, merge keys, keys that are no words, or texts over several lines."; "Write the value out in quotes, and each section where it is needed.";
    "E0008": "Readers of YAML do not agree on what this means."; "Write it in quotes, or one key on each line.";
    "E0009": "A quoted text is not closed on its line."; "Close it with the quote it began with.";
    "E0010": "A backslash in double quotes is followed by a letter that is no escape."; "Use single quotes, in which a backslash is only a backslash, or write two of them.";
    "E0011": "The file holds several documents."; "Remove the lines of three dashes or three dots.";
    "E0012": "Lists and sections lie too deep within each other."; "Write the value as the manual page shows it.";
    "E0013": "A line is neither a key with its value nor an item of a list."; "Write  key: value  with a blank behind the colon.";
    "E0014": "A list in brackets or a section in braces is not closed, or lacks a comma."; "Close it, put commas between the items, or write one item on each line.";
    "E0015": "The file is not UTF-8."; "Save it as UTF-8.";
    "E0020": "A configuration file or its directory cannot be read, or is no plain file."; "Look at its path, its owner and its mode; the daemon's user must be able to read it.";
    "E0021": "The first configuration could not be written."; "Choose a directory that the user may write to.";
    "E0023": "A change of several files was broken off, and finishing it failed."; "See to the disk, then start the daemon again; it finishes the change before it reads anything.";
    "E0101": "The file does not say which version of the configuration it is written for."; "Begin it with  version: 1.";
    "E0102": "The file is written for a version that this program does not know."; "Write  version: 1, or install the program that the file is meant for.";
    "E0103": "A key has no value."; "Write one, or remove the line to have the default.";
    "E0104": "Something that must be said is missing beside what was written."; "Add the key that the message names.";
    "E0105": "A single value stands where keys belong."; "Write the keys below it, each on its own line.";
    "E0106": "A list or a section stands where one value belongs, or the other way round."; "Write it as the manual page shows it.";
    "E0107": "The key is not known here; perhaps it is mistyped, or stands in another section or file."; "Take the suggestion, or look for it in mailroot.yaml(5) and mailroot-server.yaml(5).";
    "E0108": "A key stands twice in one section."; "Remove one of them.";
    "E0199": "The file has more errors than are told at once."; "Correct those that are told, then check again.";
    "E0201": "A switch is neither true nor false."; "Write true or false.";
    "E0202": "A whole number belongs here."; "Write digits alone, without a unit; where the manual says so, also unlimited or auto.";
    "E0203": "A duration cannot be read, mostly for want of a unit."; "Write 90s, 15m, 4h, 4d or 1h30m. The original counted minutes.";
    "E0204": "A value is smaller or larger than the key allows."; "Write one within the bounds that the message names.";
    "E0205": "A size cannot be read, mostly for want of a unit."; "Write 35MiB, 64KiB, 1GiB, or MB, kB and GB for powers of ten. The original counted KB.";
    "E0206": "The word is none of those that the key takes."; "Write one of the words in the message.";
    "E0207": "A moment cannot be read."; "Write date, time and zone, such as 2026-11-26T09:30:00Z.";
    "E0208": "A rate cannot be read."; "Write so many messages in a time: 30/min, 10/s, 500/h or 10000/d.";
    "E0210": "A path is not whole, or has .. in it."; "Write it from / on, or as a plain name below the mail root where the manual allows that.";
    "E0211": "A text is too long or has characters that would break a protocol or the log."; "Write it shorter and on one line.";
    "E0301": "A domain name cannot be read."; "Write a name such as example.net; where the manual allows it, *.example.net for all below it.";
    "E0302": "A mail address cannot be read."; "Write an address such as postmaster@example.net.";
    "E0303": "A host to deliver to cannot be read, or none is named."; "Write host, host:port, [192.0.2.1] or [2001:db8::1]:587.";
    "E0304": "An IP address cannot be read."; "Write an address such as 192.0.2.1 or 2001:db8::1, without a port.";
    "E0305": "A network has bits set beyond its prefix, so that it may mean a host or a network."; "Write one of the two that the message offers.";
    "E0306": "An address with a port cannot be read."; "Write 127.0.0.1:25 or, in quotes, [::1]:25; 0.0.0.0 stands for all addresses.";
    "E0307": "An entry of an access list is neither an address, a network nor a domain."; "Write 192.0.2.1, 192.0.2.0/24, 2001:db8::/32, host.example.net or *.example.net.";
    "E0308": "An operator is no possible name of a user or a group."; "Write a login name, or a group's name behind a percent sign, in quotes.";
    "E0309": "A DNS resolver cannot be asked, or an empty list of them was given."; "Write system, or addresses such as 192.0.2.53 or 127.0.0.1:5353.";
    "E0310": "The relay list lets every host that reaches a listener send mail to anybody: an open relay."; "List the networks of your own hosts. Whoever insists writes  i_want_an_open_relay: true  below access.relay.";
    "E0312": "The digest of a pinned key cannot be read."; "Write the 64 hexadecimal digits of its SHA-256.";
    "E0313": "A secret stands in the configuration, or the place where it is kept cannot be read."; "Put it into a file in secrets.d, mode 0600, and write  {file: NAME};  or set it with smtpctl smarthost passwd.";
    "E0314": "An address or network cannot be read."; "Write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32.";
    "E0315": "A queue for ETRN has a name that none can have."; "Use at most 64 letters, digits, dots, dashes and underscores, without the # in front.";
    "E0316": "An address of the web cannot be read, or would be asked without TLS."; "Write https://host/path; http: is only for addresses of this machine, such as http://127.0.0.1:8080/token.";
    "E0317": "A DKIM selector cannot be read, or is too long for DNS."; "Use letters, digits and hyphens, such as mr1.";
    "E0318": "A header field that is to be signed has no such name, or others change it on the way."; "Write a name such as Subject; fields of the way, such as Received, are never signed.";
    "E0319": "A rule of delivery.sender_rewrite has a pattern that cannot be read, or an address that not every host takes."; "Write  {from: \"*@scanners.example\", to: scanner@example.net}.";
    "E0390": "A certificate has a name that none can have."; "Use at most 32 of a to z, digits, hyphens and underscores, beginning with a letter; auto is the service's own.";
    "E0391": "A virtual server shows a certificate that is not there."; "Add it with smtpctl cert install, or name another.";
    "E0392": "A listener speaks nothing but TLS, and its virtual server has no TLS."; "Write  mode: optional  below access.tls, or make the listener an ordinary one.";
    "E0393": "A virtual server is to show no certificate at all."; "Name at least one, or remove access.tls.certificate.";
    "E0401": "A domain is listed twice in one virtual server."; "Remove one of the two.";
    "E0402": "A virtual server has two default domains."; "Make all but one an alias.";
    "E0403": "A virtual server has no default domain."; "Add one:  - {name: example.net, type: default}.";
    "E0404": "A setting of a domain belongs to domains of another type."; "Remove it, or change the type.";
    "E0405": "A domain of ours is written with an asterisk."; "Name each of your own domains; only remote domains take an asterisk.";
    "E0406": "The largest message is larger than what one session may send."; "Raise messages.max_session_size, or lower messages.max_size.";
    "E0407": "One domain may have more connections than there are in all."; "Raise delivery.connections.max, or lower delivery.connections.per_domain.";
    "E0408": "The list of waits between attempts is empty."; "Write at least one, such as 15m.";
    "E0410": "A key of profile iis6 stands in a server of profile modern."; "Begin delivery.outbound.retry with short waits instead.";
    "E0411": "Direct delivery is to come before the smart host, but there is no smart host."; "Set delivery.smart_host, or remove delivery.direct_first.";
    "E0412": "Two listeners want one address."; "Give each server an address or a port of its own.";
    "E0413": "Mail is to be sent from two addresses of one family."; "Keep one IPv4 and one IPv6 address in delivery.source.";
    "E0414": "A server's smart host is the server itself, so that its mail would go round in circles."; "Name another host.";
    "E0416": "BINARYMIME is offered without CHUNKING, which it needs."; "Add CHUNKING to general.extensions, or remove BINARYMIME.";
    "E0417": "The From header is to be masqueraded, and no domain is named."; "Set delivery.masquerade_domain, or remove delivery.masquerade_header.";
    "E0421": "A file in servers.d has a name that no virtual server can have."; "Rename it: a to z, digits, dots, hyphens and underscores, at most 32 of them, then .yaml.";
    "E0422": "There are more virtual servers than one service carries."; "Move files out of servers.d.";
    "E0423": "Two virtual servers would keep their mail in one directory, or one within the other's."; "Give each a store.root of its own, or leave it out.";
    "E0424": "A Drop directory lies where another server keeps mail that is on its way."; "Name another directory in drop.dir, or leave it out.";
    "E0431": "A smart host is named that smart_hosts does not have."; "Add it with smtpctl smarthost set, or correct the name.";
    "E0432": "A smart host has a name that none can have."; "Use at most 32 of a to z, digits, hyphens and underscores, beginning with a letter.";
    "E0433": "The login of a smart host contradicts itself: a name or password without a login, or one under TLS only without TLS."; "Complete it, or remove what is not used.";
    "E0434": "A smart host may log in by no mechanism at all."; "Name at least one, or remove auth.mechanisms.";
    "E0435": "A remote domain is greeted with HELO, which has no STARTTLS, and its mail is to go under TLS."; "Remove helo_only, or write  tls: off.";
    "E0436": "A remote domain sends by a smart host that has a name and wants TLS of its own."; "Set tls of the smart host instead.";
    "E0437": "A key about held mail stands at a domain whose mail is not held."; "Write  release: etrn  below hold, or remove the key.";
    "E0439": "Two keys of one domain have the same DKIM selector."; "Give each key of a domain a selector of its own.";
    "E0440": "A smart host is to know us by a certificate, and mail could go there in clear text."; "Write  tls: verify, or required, at the smart host.";
    "W0022": "An earlier state of the configuration could not be kept, so there is nothing to fall back on."; "See that the state directory can be written to.";
    "W0199": "The file has more warnings than are told at once."; "Settle those that are told, then check again.";
    "W0310": "The server is an open relay, and its file insists on it."; "Remove i_want_an_open_relay unless everyone shall send through this server.";
    "W0311": "A relay list names hosts by their DNS names, which whoever runs their reverse zone can claim."; "List addresses or networks instead, if you know them.";
    "W0409": "The notice of delay would come after the mail was given up."; "Write  delay_notice: never, or let expire be longer.";
    "W0415": "A virtual server listens nowhere."; "Nothing, if mail shall come through Pickup only; otherwise set general.listen.";
    "W0420": "There is no virtual server."; "Create one with smtpctl server create.";
    "W0425": "A virtual server gets another mail root or Drop directory; what lies in the old one stays there."; "Move the files by hand, or leave them for whoever fetches them.";
    "W0430": "The machine's name has no dot, so that other hosts cannot look it up."; "Set service.hostname to the name that DNS has for it.";
    "W0438": "A DKIM key cannot be read or used, so that mail of its domain waits."; "See that its file is in secrets.d with mode 0600 and holds an RSA key of 2048 bits or more or an Ed25519 key, as PKCS#8 in PEM.";
    "W0470": "A certificate cannot be used."; "See that the files of the chain and the key are there, in PEM, belong together, and that the service alone can read the key.";
    "W0471": "A certificate has expired or soon will."; "Put a new one in the place of its files; it is shown without a restart.";
}
