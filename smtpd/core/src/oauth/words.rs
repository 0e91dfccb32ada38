//! What the codes of providers mean and what to do, as tables: those of token endpoints, and those of
//! hosts that refuse a login or mail.
//!
//! Sources: Microsoft's published list of `AADSTS` codes and its page on authenticated submission,
//! Google's pages on OAuth errors and on those of its mail hosts, RFC 6749 section 5.2. The most special
//! row stands first.

use mailroot_common::status::EnhancedCode;

/// What a code means.
#[derive(Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The code as the provider writes it.
    pub code: &'static str,
    /// What is wrong.
    pub cause: &'static str,
    /// What to do.
    pub cure: &'static str,
}

macro_rules! meanings {
    ($($code:literal: $cause:literal, $cure:literal;)*) => {
        &[$(Meaning { code: $code, cause: $cause, cure: $cure }),*]
    };
}

/// Codes of Microsoft, which stand in descriptions.
const MICROSOFT: &[Meaning] = meanings! {
    "AADSTS7000215": "the client secret is wrong", "give the secret's value, not its id: smtpctl smarthost login NAME --client-secret-stdin";
    "AADSTS7000222": "the client secret has expired", "make a new one in the registered application, then smtpctl smarthost login NAME --client-secret-stdin";
    "AADSTS7000218": "the application needs a secret and none was sent", "give it with smtpctl smarthost login NAME --client-secret-stdin, or allow public client flows in the registered application";
    "AADSTS7000216": "the application needs a secret and none was sent", "give it with smtpctl smarthost login NAME --client-secret-stdin";
    "AADSTS700016": "the tenant knows no application of this id", "correct client_id or tenant: smtpctl smarthost show NAME";
    "AADSTS700082": "the refresh token has expired, since it was not used for long", "sign in again: smtpctl smarthost login NAME --device-code";
    "AADSTS700084": "the refresh token has expired", "sign in again: smtpctl smarthost login NAME --device-code";
    "AADSTS700027": "the certificate of the application is not known there, or has ended", "upload it to the registered application, or give the one that is known: smtpctl smarthost login NAME --client-cert FILE";
    "AADSTS700024": "the word that the application signed is out of its time", "set this machine's clock: smtpctl doctor time";
    "AADSTS7000112": "the application is disabled", "enable it in the tenant";
    "AADSTS700038": "the id of the application cannot be one", "correct client_id: smtpctl smarthost show NAME";
    "AADSTS90002": "there is no such tenant", "correct tenant: smtpctl smarthost show NAME";
    "AADSTS900023": "the tenant's name cannot be one", "correct tenant: smtpctl smarthost show NAME";
    "AADSTS9002313": "the request cannot be read by the provider", "look at tenant, client_id and scope: smtpctl smarthost show NAME";
    "AADSTS65001": "nobody has allowed the application to act for the mailbox", "an administrator grants consent; smtpctl smarthost login NAME --print-admin-steps lists the steps";
    "AADSTS65004": "the person did not allow it", "sign in again and consent: smtpctl smarthost login NAME --device-code";
    "AADSTS50173": "the refresh token was taken back, as after a change of password", "sign in again: smtpctl smarthost login NAME --device-code";
    "AADSTS50076": "the provider wants a second factor", "sign in again: smtpctl smarthost login NAME --device-code";
    "AADSTS50079": "the provider wants a second factor to be set up", "the person sets it up, then smtpctl smarthost login NAME --device-code";
    "AADSTS50034": "the tenant knows no such account", "look at mailbox and tenant: smtpctl smarthost show NAME";
    "AADSTS50057": "the account is disabled", "enable it in the tenant";
    "AADSTS50126": "name or password of the person are wrong", "sign in again: smtpctl smarthost login NAME --device-code";
    "AADSTS53003": "a rule of the tenant (conditional access) forbids it", "an administrator exempts the application or this host's address";
    "AADSTS70011": "the scope is none that the provider knows", "correct scope, or remove it: smtpctl smarthost show NAME";
    "AADSTS1002012": "the scope must end in /.default for an application's own right", "remove scope, so that the preset's counts";
    "AADSTS500011": "the tenant does not know the service that the scope names", "correct scope, or remove it: smtpctl smarthost show NAME";
    "AADSTS501051": "the application has no role at the service", "an administrator grants SMTP.SendAsApp; smtpctl smarthost login NAME --print-admin-steps lists the steps";
    "AADSTS70008": "the refresh token has expired, or was taken back", "sign in again: smtpctl smarthost login NAME --device-code";
    "AADSTS70043": "the refresh token has ended, since a rule of the tenant (conditional access) has people sign in often", "sign in again, or use the application's own right: smtpctl smarthost login NAME --client-credentials";
    "AADSTS50078": "the second factor was shown too long ago for a rule of the tenant", "sign in again, or use the application's own right: smtpctl smarthost login NAME --client-credentials";
    "AADSTS50133": "the refresh token is good no more, as after a change of password", "sign in again: smtpctl smarthost login NAME --device-code";
    "AADSTS50055": "the password of the person has expired", "the person sets a new one, then smtpctl smarthost login NAME --device-code";
    "AADSTS50053": "the account is locked, after too many wrong logins or for this host's address", "wait, or an administrator unlocks it";
    "AADSTS50020": "the account belongs to another tenant", "correct tenant or mailbox: smtpctl smarthost show NAME";
    "AADSTS50105": "the person may not use the application", "an administrator assigns the person to it";
    "AADSTS53000": "a rule of the tenant (conditional access) wants a device that it manages", "use the application's own right: smtpctl smarthost login NAME --client-credentials";
    "AADSTS53001": "a rule of the tenant (conditional access) wants a device that it manages", "use the application's own right: smtpctl smarthost login NAME --client-credentials";
    "AADSTS90094": "an administrator must allow the application", "an administrator grants consent; smtpctl smarthost login NAME --print-admin-steps lists the steps";
    "AADSTS7000229": "the tenant has no service principal of the application", "make it; smtpctl smarthost login NAME --print-admin-steps lists the steps";
    "AADSTS90033": "the provider is out of order", "nothing: it is asked again";
    "AADSTS50196": "the provider was asked too often", "nothing: it is asked again";
    "AADSTS70020": "the code for the person has expired", "ask for another: smtpctl smarthost login NAME --device-code";
};

/// Words of Google, which stand in descriptions as well.
const GOOGLE: &[Meaning] = meanings! {
    "invalid_rapt": "a rule of the organization has sign-ins end", "an administrator exempts the application from it (session control); then sign in again: smtpctl smarthost login NAME";
    "Account has been deleted": "there is no such account any more", "correct mailbox, and sign in again: smtpctl smarthost login NAME";
};

/// Words of RFC 6749 and RFC 8628, for whatever is in no other table.
const STANDARD: &[Meaning] = meanings! {
    "invalid_client": "the provider does not know the application, or its secret is wrong", "correct client_id, or give the secret anew: smtpctl smarthost login NAME";
    "invalid_grant": "the right to ask for tokens is over: it expired, or was taken back", "sign in again: smtpctl smarthost login NAME";
    "unauthorized_client": "the application may not ask for tokens in this way", "look at its type and rights at the provider";
    "unsupported_grant_type": "the provider gives no tokens in this way", "choose another grant: smtpctl smarthost show NAME";
    "invalid_scope": "the provider does not give this scope in this way", "correct scope; Google gives none for mail to codes for a person: use smtpctl smarthost login NAME --refresh-token-stdin";
    "invalid_request": "the provider misses something in the request", "look at client_id, tenant and scope: smtpctl smarthost show NAME";
    "access_denied": "the person, or an administrator, refused", "sign in again and consent: smtpctl smarthost login NAME --device-code";
    "expired_token": "the code for the person has expired", "ask for another: smtpctl smarthost login NAME --device-code";
    "admin_policy_enforced": "a rule of the organization forbids the application", "an administrator allows it";
    "org_internal": "the application is for another organization", "register one in this organization";
    "disabled_client": "the application is disabled", "enable it at the provider";
    "deleted_client": "the application was deleted", "register another and say smtpctl smarthost login NAME";
    "rate_limit_exceeded": "the provider was asked for codes too often", "wait a while, then ask again";
    "temporarily_unavailable": "the provider is out of order", "nothing: it is asked again";
    "server_error": "the provider is out of order", "nothing: it is asked again";
};

/// The code of a host that takes a token for no mailbox; a password means something else by it.
pub const NO_MAILBOX: &str = "5.7.3";

/// What a code of a host means, if its text has a word, in small letters.
type Row = (EnhancedCode, &'static str, Meaning);

/// Words of hosts that refuse a login.
const LOGINS: &[Row] = &[
    (
        EnhancedCode::permanent(7, 139),
        "smtpclientauthentication",
        Meaning {
            code: "5.7.139",
            cause: "logins are switched off for the mailbox or the tenant",
            cure: "Set-CASMailbox MAILBOX -SmtpClientAuthenticationDisabled $false",
        },
    ),
    (
        EnhancedCode::permanent(7, 139),
        "",
        Meaning {
            code: "5.7.139",
            cause: "a rule of the tenant forbids the login",
            cure: "look at the sign-in log of the tenant; security defaults may be in the way",
        },
    ),
    (
        EnhancedCode::permanent(7, 3),
        "",
        Meaning {
            code: NO_MAILBOX,
            cause: "the token is good for no mailbox of this name, or not for sending",
            cure: "is mailbox right, the application's service principal made and FullAccess given? \
                   smtpctl smarthost login NAME --print-admin-steps lists the steps",
        },
    ),
    (
        EnhancedCode::permanent(7, 30),
        "",
        Meaning {
            code: "5.7.30",
            cause: "the host takes no name and password any more, only tokens",
            cure: "smtpctl smarthost login NAME --client-credentials",
        },
    ),
    (
        EnhancedCode::permanent(7, 9),
        "application-specific password",
        Meaning {
            code: "5.7.9",
            cause: "the account has a second factor, so that its own password is not taken",
            cure: "make an app password of it and set that: smtpctl smarthost passwd NAME",
        },
    ),
    (
        EnhancedCode::permanent(7, 8),
        "p=badcredentials",
        Meaning {
            code: "5.7.8",
            cause: "Google does not take this name and password, nor a password that is not an app's",
            cure: "smtpctl smarthost passwd NAME with an app password, or smtpctl smarthost login NAME",
        },
    ),
];

/// Words of hosts that refuse mail.
const MAIL: &[Row] = &[
    (
        EnhancedCode::permanent(7, 1),
        "credentials for relay",
        Meaning {
            code: "5.7.1",
            cause: "the relay of Google does not know our address, or our name and the sender are of no \
                    domain of its account",
            cure: "enter this host's public address at the SMTP relay service of the Admin console; \
                   delivery.fqdn and senders must be of a domain of the account",
        },
    ),
    (
        EnhancedCode::permanent(7, 64),
        "",
        Meaning {
            code: "5.7.64",
            cause: "no connector of the tenant knows our address or certificate",
            cure: "make a connector for this host's public address, or for its certificate",
        },
    ),
    (
        EnhancedCode::permanent(7, 60),
        "",
        Meaning {
            code: "5.7.60",
            cause: "the mailbox that we log in as may not send as this sender",
            cure: "give it the right SendAs, or have all mail sent by its own address",
        },
    ),
];

/// What a provider's error means.
#[must_use]
pub fn of_provider(error: &str, description: &str) -> Option<&'static Meaning> {
    let starts_there = |meaning: &&Meaning| {
        let rest = description.split_once(meaning.code).map(|(_, rest)| rest);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let known = MICROSOFT.iter().chain(GOOGLE).find(starts_there);
    known.or_else(|| STANDARD.iter().find(|meaning| meaning.code == error))
}

/// What a host means by refusing a login, where one of the providers is known to mean it. The class does
/// not matter: a login that was refused for good is kept as one that may work later.
#[must_use]
pub fn of_login(status: EnhancedCode, text: &str) -> Option<&'static Meaning> {
    find(LOGINS, status, text)
}

/// What a smart host means by refusing mail, where one of the providers is known to mean it.
#[must_use]
pub fn of_mail(status: EnhancedCode, text: &str) -> Option<&'static Meaning> {
    find(MAIL, status, text)
}

fn find(rows: &'static [Row], status: EnhancedCode, text: &str) -> Option<&'static Meaning> {
    let status = status.in_class(mailroot_common::status::Class::Permanent);
    let text = text.to_lowercase();
    let found = rows.iter().find(|(code, word, _)| *code == status && text.contains(word));
    found.map(|(_, _, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        let told = |error, description: &str| of_provider(error, description).map(|it| it.code);
        for code in ["AADSTS7000215", "AADSTS700016", "AADSTS90002", "AADSTS65001", "AADSTS700082"]
        {
            let description = format!("{code}: words");
            assert_eq!(told("invalid_client", &description), Some(code));
        }
        // One that only begins like a known one is not taken for it.
        assert_eq!(told("invalid_client", "AADSTS900025: x"), Some("invalid_client"));
        assert_eq!(told("invalid_grant", "Bad Request"), Some("invalid_grant"));
        assert_eq!(told("odd", "x"), None);
        // One that other numbers begin with.
        assert_eq!(told("invalid_grant", "AADSTS50053: locked"), Some("AADSTS50053"));
        let ended = "reauth related error (invalid_rapt)";
        assert_eq!(told("invalid_grant", ended), Some("invalid_rapt"));
    }

    #[test]
    fn every_row_says_what_to_do() {
        let rows: Vec<&Meaning> = [MICROSOFT, GOOGLE, STANDARD].into_iter().flatten().collect();
        for (place, row) in rows.iter().enumerate() {
            assert!(!row.cause.is_empty() && !row.cure.is_empty(), "{}", row.code);
            assert!(!rows[..place].iter().any(|other| other.code == row.code), "{}", row.code);
        }
    }

    #[test]
    fn refusals_of_hosts() {
        let status = |text: &str| EnhancedCode::parse(text).unwrap();
        let off =
            "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.";
        let cure = |text: &str, said: &str| of_login(status(text), said).unwrap().cure;
        assert!(cure("5.7.139", off).contains("Set-CASMailbox"));
        assert!(of_login(status("5.7.139"), "blocked").unwrap().cause.contains("tenant forbids"));
        assert!(of_login(status("4.7.3"), "").unwrap().cause.contains("mailbox"));
        assert!(cure("5.7.30", "basic authentication is not supported").contains("--client"));
        assert_eq!(of_login(status("5.7.8"), ""), None);
        let google = "Username and Password not accepted. https://support.google.com/mail/?p=BadCredentials x - gsmtp";
        assert!(cure("4.7.8", google).contains("app password"));
        assert!(cure("5.7.9", "Application-specific password required").contains("app password"));

        let of_mail = |text: &str, said: &str| of_mail(status(text), said).map(|it| it.code);
        assert_eq!(of_mail("5.7.60", "SendAsDenied"), Some("5.7.60"));
        assert_eq!(of_mail("5.7.64", "TenantAttribution; Relay Access Denied"), Some("5.7.64"));
        let relay = "Invalid credentials for relay [192.0.2.1]. The IP address you've registered";
        assert_eq!(of_mail("5.7.1", relay), Some("5.7.1"));
        assert_eq!(of_mail("5.7.1", "blocked"), None);
    }
}
