"""A milter on libmilter that does what the mail says it should: a word in an address or in the Subject."""
import sys

import Milter


class Actions(Milter.Base):
    def __init__(self):
        self.log = []
        self.subject = ""

    def connect(self, name, family, address):
        self.log.append("connect %s %s j=%s" % (name, address[0], self.getsymval("j")))
        return Milter.CONTINUE

    def hello(self, name):
        self.log.append("helo %s" % name)
        return Milter.CONTINUE

    def envfrom(self, sender, *rest):
        self.subject, self.size = "", 0
        self.log.append("mail %s user=%s" % (sender, self.getsymval("{auth_authen}")))
        if "later" in sender:
            return Milter.TEMPFAIL
        return Milter.CONTINUE

    def envrcpt(self, recipient, *rest):
        self.log.append("rcpt %s %s" % (recipient, self.getsymval("{rcpt_addr}")))
        if "never" in recipient:
            self.setreply("550", "5.7.99", "never, 100%% sure")
            return Milter.REJECT
        return Milter.CONTINUE

    def header(self, name, value):
        if name.lower() == "subject":
            self.subject = value.strip()
        self.log.append("header %s: %s" % (name, value.strip()))
        return Milter.CONTINUE

    def eoh(self):
        return Milter.CONTINUE

    def body(self, piece):
        self.size += len(piece)
        return Milter.CONTINUE

    def eom(self):
        word = self.subject.split(" ")[0]
        self.log.append("eom %s size=%d id=%s" % (word, self.size, self.getsymval("i") or ""))
        with open(sys.argv[2], "a") as out:
            out.write("\n".join(self.log) + "\n")
        self.log = []
        if word == "reject":
            return Milter.REJECT
        if word == "defer":
            self.setreply("451", "4.7.42", "come again")
            return Milter.TEMPFAIL
        if word == "discard":
            return Milter.DISCARD
        if word == "hold":
            self.quarantine("looks odd")
        if word in ("change", "large"):
            self.addheader("X-Last", "added\n\tfolded")
            self.addheader("X-First", "inserted", 0)
            self.chgheader("X-Old", 1, "")
            self.chgheader("Subject", 1, "changed subject")
            self.delrcpt("<b@local.test>")
            self.addrcpt("<other@local.test>")
            self.chgfrom("<changed@client.test>")
        if word == "add":
            self.addheader("X-Added", "yes")
        if word == "change":
            self.replacebody(b"another body\r\n.with a dot\r\n")
        return Milter.CONTINUE


Milter.factory = Actions
Milter.set_flags(
    Milter.ADDHDRS | Milter.CHGHDRS | Milter.CHGBODY | Milter.ADDRCPT | Milter.DELRCPT
    | Milter.CHGFROM | Milter.QUARANTINE)
Milter.runmilter("actions", sys.argv[1], 60)
