//! Codes of problems that the control interface and `smtpctl` tell, and of the warnings of `status`.
//!
//! A code is a noun and a word. Where the word is that of a kind of problem, such as `not_found`,
//! the exit code of `smtpctl` and the HTTP status follow from it.

super::codes! {
    /// Problems of the control interface and its tool, and warnings of status.
    PROBLEMS:

    "access.not_found": "A virtual server has no access list of that name."; "Name connect or relay.";
    "access.usage": "An entry was given an end or a comment, but the list's policy means that it is taken off."; "Leave them out, or change the policy first.";
    "badmail.failed": "A file in Badmail could not be read or written."; "Look at the mode of the directory and at the disk; smtpctl doctor does both.";
    "badmail.not_found": "There is no message of that id in Badmail; perhaps it was purged."; "List them with smtpctl badmail list.";
    "badmail.unavailable": "Badmail is being closed because its server stops."; "Start the server and try again.";
    "badmail.usage": "A message in Badmail cannot be sent again as it is: it names no sender or no recipient."; "Name them with --from and --to.";
    "caller.not_permitted": "The user is no operator, or one of a role that is not enough."; "An admin gives roles with smtpctl operator add.";
    "client.answer": "The daemon answered with something that is no problem in its own form."; "Compare the two versions with smtpctl version; perhaps another program owns the socket.";
    "client.failed": "The tool could not do its own part, such as starting or reading a name."; "The message tells what the system said.";
    "client.usage": "The command line makes no sense."; "Look at --help of the command.";
    "code.not_found": "No error or warning has that code."; "mailroot-errors(7) lists them all.";
    "config.address": "A new listener's address cannot be used on this machine, or another program has it."; "Choose another, or free it; nothing was changed.";
    "config.broken": "A warning of status: the files have errors, and an earlier state of them is in force."; "Correct them and say smtpctl reload.";
    "config.busy": "Another change is being made."; "Try again in a moment.";
    "config.by_hand": "The change cannot be made in this file without touching more than it should."; "Make it with smtpctl config edit.";
    "config.changed": "The configuration was changed since it was looked at."; "Look at smtpctl config history, then try again.";
    "config.config_invalid": "The files as they are, or as they would be, have errors; what is in force stays so."; "Each error is told with its own code, file and line.";
    "config.edited": "A warning of status: the files were edited and not loaded."; "Look with smtpctl config diff, load with smtpctl reload.";
    "config.failed": "A configuration file could not be read or written."; "Look at its path, its mode and the disk.";
    "config.key": "The key or its value cannot be set that way."; "smtpctl config show lists the keys of the service, with -s NAME those of a server.";
    "config.locked": "Changes by tools are locked, for the reason in the message."; "Change it where the lock's reason says, or unlock with smtpctl config unlock.";
    "config.no_item": "What is to be removed from a list is not in it."; "Look at the list; write the entry as it shows it.";
    "config.no_key": "There is no such key."; "smtpctl config show lists them.";
    "config.no_revision": "There is no such revision; perhaps it is too old to have been kept."; "smtpctl config history lists them.";
    "config.no_trial": "Nothing is on trial: it was confirmed, or its time is over."; "Look at smtpctl config history.";
    "config.not_found": "There is no such file, or no revision before the newest."; "Look at the path, or at smtpctl config history.";
    "config.not_permitted": "You may not read that file."; "Use sudo, or ask the daemon: smtpctl config show.";
    "config.on_trial": "A change is on trial, and no other is made until it is kept or taken back."; "Keep it with smtpctl config confirm, or wait.";
    "config.partly": "Some of it is in force and some could not be put in force."; "The message names each part; correct it and say smtpctl reload.";
    "config.trial": "A warning of status: a change is on trial and will be taken back."; "Keep it with smtpctl config confirm.";
    "config.usage": "A change or a file of the configuration was asked for in a form that cannot be taken."; "Look at --help of the command.";
    "daemon.failed": "The conversation with the daemon broke off."; "Look at the daemon's log; compare the versions with smtpctl version.";
    "daemon.not_permitted": "You may not open the control socket."; "Use sudo, or have yourself added to the group mailroot-operators.";
    "daemon.timed_out": "The daemon took too long to answer."; "Look at its log and at the load of the disk; the order may still be carried out.";
    "daemon.unavailable": "Nobody answers at the control socket: the daemon does not run, or under another home."; "Start it with systemctl start mailroot, or name its directory with --home.";
    "doctor.busy": "Another look of the same kind is being taken."; "Try again when it has ended.";
    "doctor.failed": "A measurement could not be made."; "The message tells what the system said.";
    "doctor.no_queue": "The server never opened its queue, so its disk cannot be measured."; "smtpctl server show tells why.";
    "doctor.timed_out": "A measurement took too long."; "The disk is very slow or does not answer; look at the system's log.";
    "domain.exists": "The virtual server has that domain already."; "Change it with smtpctl domain set, or say --if-not-exists.";
    "domain.is_default": "The default domain cannot be removed."; "Make another one the default first: smtpctl domain default.";
    "domain.no_alias": "Only an alias can become the default domain."; "Add it as an alias first.";
    "domain.not_found": "The virtual server has no such domain."; "smtpctl domain list names them.";
    "domain.usage": "The options of a domain contradict each other."; "Look at --help of the command.";
    "drop.failed": "A file in Drop could not be read or removed."; "Look at the mode of the directory and at the disk.";
    "drop.not_found": "There is no message of that id in Drop; perhaps it was fetched."; "List them with smtpctl drop list.";
    "file.failed": "A file that was handed over could not be read, kept or moved."; "Look at its mode and at the space that is left.";
    "file.not_found": "No file was named that is there."; "Look at the path.";
    "file.partly": "Some of the files were taken and others not."; "The message names each file that was not.";
    "file.usage": "A file is no message that can be sent: it has no recipient, or its header cannot be read."; "The message tells the line; correct it and hand it over again.";
    "message.failed": "None of the messages could be changed."; "The message tells why, for each of them.";
    "message.not_found": "No message matches."; "Look with the same words in smtpctl queue list or smtpctl trace.";
    "message.partly": "Some messages were changed and others not."; "Those that were not are named; the command can be repeated.";
    "message.usage": "A change of several messages was not confirmed."; "Answer the question, or say --yes.";
    "output.failed": "The output could not be written."; "See that what reads it is still there and that there is space.";
    "output.usage": "A column or a form of output is not known."; "Look at the columns in the message.";
    "pickup.failed": "The Pickup directory could not be looked at."; "Look at its mode and at the disk.";
    "pickup.found": "A file was checked and would not be sent as it is."; "The message tells what is wrong with it.";
    "queue.busy": "The message is being tried at this moment."; "Try again when the attempt has ended.";
    "queue.conflict": "The message is being returned to its sender, or there are too many standing orders."; "Let the return end, or remove orders that are no longer needed.";
    "queue.failed": "Stored mail could not be read or written."; "Look at smtpctl doctor and at the log; mail that was accepted is kept.";
    "queue.not_found": "The message or the order is not, or no longer, in the queue."; "smtpctl trace tells what became of a message.";
    "queue.usage": "A standing order cannot be read."; "Look at --help of the command.";
    "request.no_method": "The path is there, but takes other methods."; "GET /v1/openapi.json lists the methods of each path.";
    "request.not_found": "The control interface has no such path."; "GET /v1/openapi.json lists them.";
    "request.not_permitted": "A browser sent the request."; "The control interface is for programs; use smtpctl.";
    "request.timed_out": "The body of a request did not arrive in time."; "Send it at once after the head.";
    "request.usage": "A request, its query or its body cannot be understood."; "GET /v1/openapi.json describes each of them.";
    "selector.ambiguous": "The beginning of an id fits several messages."; "Write more of it.";
    "selector.not_found": "Standard input was to name ids and named none."; "See that what writes them found some.";
    "selector.usage": "What chooses messages is missing or cannot be read."; "Name ids, conditions such as --to, or --all.";
    "send.failed": "A message that smtpctl sent was refused, or could not be handed over."; "The message has the words of the server.";
    "send.unavailable": "No server is there that takes the message, or none is running."; "Look at smtpctl server list.";
    "send.usage": "The message to be sent cannot be made from what was given."; "Look at --help of the command.";
    "server.exists": "There is a virtual server of that name."; "Choose another name, or say --if-not-exists.";
    "server.failed": "An order to virtual servers could not be carried out."; "smtpctl server show and the log tell why.";
    "server.in_the_way": "A directory or file stands where the virtual server's mail would be."; "Move it away, or name another directory.";
    "server.not_found": "There is no virtual server of that name."; "smtpctl server list names them.";
    "server.not_running": "A warning of status: a virtual server that is enabled does not run."; "Remove the cause that is told, then say smtpctl server start.";
    "server.not_started": "A virtual server could not be started."; "Remove the cause that is told, then try again.";
    "server.partly": "Some virtual servers did what was asked and others not, or one was created and does not run."; "The message names each; smtpctl server show tells why.";
    "server.queue_left": "The virtual server still holds mail that would be lost."; "Let the queue empty, send it on with smtpctl queue redirect, or discard it in so many words.";
    "server.queue_stays": "A change would give the virtual server another mail root, and mail waits in the queue of the one it has."; "Let the queue empty, or send it on with smtpctl queue redirect; start the server once if its queue was not opened yet.";
    "server.unavailable": "The virtual server has no open queue: it never started."; "smtpctl server show tells why; then say smtpctl server start.";
    "server.usage": "An order to virtual servers is not complete, or was not confirmed."; "Name the server; say --yes where a question cannot be asked.";
    "service.timed_out": "What was waited for did not happen in time."; "Wait longer with --wait, or look at smtpctl status.";
    "session.failed": "No session could be ended."; "Look at smtpctl session list.";
    "session.not_found": "There is no such session; perhaps it has ended."; "smtpctl session list names them.";
    "session.partly": "Some sessions were ended and others not."; "Those that were not are named; they may have ended by themselves.";
    "session.usage": "Ending several sessions was not confirmed."; "Answer the question, or repeat it with --yes.";
    "smarthost.failed": "A password could not be read from its file."; "Look at the path and at its mode.";
    "smarthost.not_found": "There is no smart host of that name."; "smtpctl smarthost list names them.";
    "smarthost.usage": "What is said of a smart host is not complete, or its password was not given."; "Look at --help of the command; a password is never an argument.";
    "trace.unavailable": "The trace is closed, because the daemon is stopping."; "Ask again when it runs.";
}
