//! Why a connection was not protected, why a login was not taken, and why a message was not signed.

use super::{Advice, Facts, Step, step};

impl Facts<'_> {
    pub(super) fn tls(&self) -> Advice {
        let (host, said) = (&self.host, &self.said);
        let (why, steps) = if self.says(&["mta-sts policy"]) {
            let why = format!(
                "The recipient's domain publishes a policy for mail to it, and {host} does not keep to it: {said}."
            );
            let purpose = "the policy; its administrator must mend the host or the policy";
            (why, vec![self.way(purpose)])
        } else if self.says(&["tlsa records"]) {
            let why = format!(
                "DNS says, signed, which certificates {host} has, and it does not keep to that: {said}."
            );
            let purpose =
                "what DNS says of it; its administrator must mend the host or the records";
            (why, vec![self.way(purpose)])
        } else if self.says(&["smtpctl tls forget"]) {
            let why = format!(
                "{host} had a good certificate before, and mail does not go there with less: {said}."
            );
            let host = host.split('[').next().unwrap_or_default();
            let forget =
                step(format!("smtpctl tls forget {host}"), "if its administrator meant that");
            (why, vec![forget])
        } else if self.says(&["does not offer", "refused starttls"]) {
            let why = format!("{host} has no TLS, and mail goes there under TLS only: {said}.");
            (why, vec![self.security("whether TLS is required")])
        } else if self.says(&["nobody we trust", "cannot be verified", "trusts nobody"]) {
            let why = format!("It is not known who {host} is: {said}.");
            let trust = step("smtpctl config get tls.trust".to_owned(), "who may vouch for it");
            (why, vec![trust, self.security("required does not check certificates")])
        } else if self.says(&["certificate", "pinned"]) {
            let why = format!("{host} is not proved to be the host that was meant: {said}.");
            (why, vec![self.security("is it the right name? Its administrator must renew it else")])
        } else {
            (format!("TLS with {host} failed: {said}."), vec![self.security("how it is protected")])
        };
        Advice { why, steps }
    }

    pub(super) fn login(&self) -> Advice {
        let (host, said) = (&self.host, &self.said);
        let name = self.smart_host.unwrap_or("NAME");
        let test = || step(format!("smtpctl smarthost test {name}"), "try it without mail");
        let (why, first) = if self.says(&["offers no auth"]) {
            let why = format!("{host} offers no login, and one is set for it: {said}.");
            (why, step(format!("smtpctl smarthost show {name}"), "is it the right host and port?"))
        } else if self.says(&["no token to log in with", "does not take our token"]) {
            let why = if self.says(&["no token to log in with"]) {
                format!("There is no token to log in with at {host}: {said}.")
            } else {
                format!("{host} does not take our token: {said}.")
            };
            (why, step(format!("smtpctl smarthost login {name}"), "set up the tokens anew"))
        } else if self.says(&["not sent without tls"]) {
            let why = format!("The password is not sent to {host} in clear text: {said}.");
            (why, step(format!("smtpctl smarthost show {name}"), "is it the right port?"))
        } else if self.says(&["cannot be made"]) {
            let why = format!("There is no password to log in with: {said}.");
            (why, step(format!("smtpctl smarthost passwd {name}"), "set it anew"))
        } else {
            let why = format!("{host} does not take our name and password: {said}.");
            (why, step(format!("smtpctl smarthost passwd {name}"), "set it anew"))
        };
        Advice { why, steps: vec![first, test()] }
    }

    pub(super) fn sign(&self) -> Advice {
        let why = format!("It is to leave with a signature (DKIM) and not without: {}.", self.said);
        let list = format!("smtpctl dkim list -s {}", self.entry.server);
        Advice { why, steps: vec![step(list, "which keys there are, and what is wrong with them")] }
    }

    /// What `smarthost set` calls the host.
    pub(super) fn smart_host_text(&self) -> String {
        self.smart_host.map_or_else(|| "HOST:PORT".to_owned(), |name| format!("--name {name}"))
    }

    /// Where it is shown how mail to the recipient is protected.
    fn way(&self, purpose: &str) -> Step {
        let (to, server) = (self.to, &self.entry.server);
        step(format!("smtpctl route show {to} -s {server}"), purpose)
    }

    /// Where the security of the way is set.
    fn security(&self, purpose: &str) -> Step {
        let command = match self.smart_host {
            Some(name) => format!("smtpctl smarthost show {name}"),
            None => format!("smtpctl server show {} --tab delivery", self.entry.server),
        };
        step(command, purpose)
    }
}
