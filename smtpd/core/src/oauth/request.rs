//! Requests to a token endpoint, as the body of a form (RFC 6749 sections 4.4 and 6, RFC 8628).

use mailroot_common::config::oauth::TokenSource;
use mailroot_common::control::path::encode;

/// What is asked.
#[derive(Clone, Copy)]
pub enum Wish<'a> {
    /// A token by the application's own right.
    ByClient,
    /// A token by the right that a person gave.
    ByRefreshToken(&'a str),
    /// A code for a person to sign in with.
    DeviceCode,
    /// Whether the person of this code has signed in.
    DeviceToken(&'a str),
}

/// What the application proves itself by.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// Nothing: it has no secret.
    None,
    /// A secret (RFC 6749 section 2.3.1).
    Secret(&'a str),
    /// A word that it has signed (RFC 7523 section 2.2).
    Assertion(&'a str),
}

/// The form. It holds secrets: it is not to be kept or logged.
#[must_use]
pub fn form(source: &TokenSource, proof: Proof<'_>, wish: Wish<'_>) -> String {
    let scope = source.scope.as_deref().map(|scope| ("scope", scope));
    let mut fields = vec![("client_id", source.client_id.as_str())];
    match wish {
        Wish::ByClient => {
            fields.push(("grant_type", "client_credentials"));
            fields.extend(scope);
        }
        Wish::ByRefreshToken(token) => {
            fields.extend([("grant_type", "refresh_token"), ("refresh_token", token)]);
            fields.extend(scope);
        }
        Wish::DeviceCode => fields.extend(scope),
        Wish::DeviceToken(code) => {
            let grant = "urn:ietf:params:oauth:grant-type:device_code";
            fields.extend([("grant_type", grant), ("device_code", code)]);
        }
    }
    // A code is asked for by the application's name alone.
    match proof {
        _ if matches!(wish, Wish::DeviceCode) => {}
        Proof::None => {}
        Proof::Secret(secret) => fields.push(("client_secret", secret)),
        Proof::Assertion(word) => {
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            fields.extend([("client_assertion_type", kind), ("client_assertion", word)]);
        }
    }
    let mut out = String::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        encode(value, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::oauth::{Endpoint, Grant};

    use super::*;

    #[test]
    fn forms_have_the_fields_of_the_standards() {
        let source = TokenSource {
            grant: Grant::ClientCredentials,
            client_id: "id".to_owned(),
            client_secret: None,
            client_certificate: None,
            token_endpoint: Endpoint::parse("https://a.example/token").unwrap(),
            device_endpoint: None,
            scope: Some("https://s.example/.default x".to_owned()),
        };
        let scope = "scope=https%3A%2F%2Fs.example%2F.default%20x";
        assert_eq!(
            form(&source, Proof::Secret("a&b=~c"), Wish::ByClient),
            format!("client_id=id&grant_type=client_credentials&{scope}&client_secret=a%26b%3D~c")
        );
        assert_eq!(
            form(&source, Proof::None, Wish::ByRefreshToken("r")),
            format!("client_id=id&grant_type=refresh_token&refresh_token=r&{scope}")
        );
        assert_eq!(
            form(&source, Proof::Secret("s"), Wish::DeviceCode),
            format!("client_id=id&{scope}")
        );
        assert_eq!(
            form(&source, Proof::Secret("s"), Wish::DeviceToken("d")),
            "client_id=id&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&\
             device_code=d&client_secret=s"
        );
        assert_eq!(
            form(&source, Proof::Assertion("a.b.c"), Wish::ByRefreshToken("r")),
            format!(
                "client_id=id&grant_type=refresh_token&refresh_token=r&{scope}&client_assertion_type=\
                 urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&\
                 client_assertion=a.b.c"
            )
        );
    }
}
