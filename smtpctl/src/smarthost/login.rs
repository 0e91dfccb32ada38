//! `smarthost login`: a login by tokens - by the application's own right, by a person who signs in with
//! a code, or by a right that was given elsewhere.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgGroup;
use clap_complete::ArgValueCompleter;
use mailroot_common::control::{
    Check, DeviceCode, DeviceState, Edited, KeyEdit, Kind, Problem, SmartHost, SmartHostCall,
    SmartHostWish, path,
};

use super::CALL_WAIT;
use crate::complete;
use crate::doctor;
use crate::io_problem;
use crate::output::escape;
use crate::password::{Place, secret, text};
use crate::terms::{TermOptions, report};
use crate::tool::{Tool, stdout};

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("right").required(true).multiple(false)))]
pub(crate) struct Login {
    /// The smart host's name.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::smart_hosts))]
    name: String,
    /// The application has a right of its own; nobody signs in.
    #[arg(long, group = "right")]
    client_credentials: bool,
    /// A person signs in with a code, here or on another machine.
    #[arg(long, group = "right")]
    device_code: bool,
    /// A person gave the right elsewhere: read it from standard input.
    #[arg(long, group = "right")]
    refresh_token_stdin: bool,
    /// A person gave the right elsewhere: read it from a file.
    #[arg(long, value_name = "FILE", group = "right")]
    refresh_token_file: Option<PathBuf>,
    /// Print what an administrator of Microsoft 365 has to do, and do nothing.
    #[arg(long, group = "right")]
    print_admin_steps: bool,
    /// A provider whose hosts and endpoints are known; NAME itself if it is one and is new.
    #[arg(long, value_parser = PRESETS)]
    preset: Option<String>,
    /// How the token is shown; xoauth2 by default.
    #[arg(long, value_parser = ["xoauth2", "oauthbearer"])]
    mechanism: Option<String>,
    /// The mailbox to log in as.
    #[arg(long, value_name = "ADDRESS")]
    mailbox: Option<String>,
    /// The organization at Microsoft: a domain of it, or its id.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The id of the registered application.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Read the application's secret from standard input.
    #[arg(long, conflicts_with_all = ["client_secret_file", "refresh_token_stdin"])]
    client_secret_stdin: bool,
    /// Read the application's secret from a file.
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Read the application's certificate and RSA key from a file of PEM, instead of a secret.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["client_secret_stdin", "client_secret_file"])]
    client_cert: Option<PathBuf>,
    /// Who gives tokens, where no preset knows.
    #[arg(long, value_name = "URL")]
    token_endpoint: Option<String>,
    /// Who gives codes, where no preset knows.
    #[arg(long, value_name = "URL")]
    device_endpoint: Option<String>,
    /// What the token is to be good for, where no preset knows.
    #[arg(long, value_name = "WORDS")]
    scope: Option<String>,
    #[command(flatten)]
    terms: TermOptions,
}

/// The presets that have tokens.
const PRESETS: [&str; 3] = [MICROSOFT, "gmail", "google-relay"];
/// The one of Microsoft.
const MICROSOFT: &str = "m365";

/// The keys that have no meaning beside a password.
pub(super) const TOKEN_KEYS: [&str; 9] = [
    "auth.mailbox",
    "auth.oauth.grant",
    "auth.oauth.tenant",
    "auth.oauth.client_id",
    "auth.oauth.client_secret",
    "auth.oauth.client_certificate",
    "auth.oauth.token_endpoint",
    "auth.oauth.device_endpoint",
    "auth.oauth.scope",
];

pub(super) async fn login(tool: &mut Tool, args: &Login) -> Result<u8, Problem> {
    if args.print_admin_steps {
        return print_admin_steps(args);
    }
    let hosts: Vec<SmartHost> = tool.daemon().await?.get(path::SMARTHOSTS).await?;
    let known = hosts.iter().find(|host| host.name == args.name);
    let (client_secret, refresh_token) = (args.client_secret()?, args.refresh_token()?);
    let brings_right = refresh_token.is_some();
    let wish = SmartHostWish {
        edits: args.edits(known),
        client_secret,
        client_certificate: args.client_cert.as_deref().map(text).transpose()?,
        refresh_token,
        ..SmartHostWish::default()
    };
    let path = args.terms.on(&path::fill(path::SMARTHOST, &[&args.name]))?;
    let edited: Edited = tool.daemon().await?.patch(&path, &wish).await?;
    if edited.dry_run || !edited.troubles.is_empty() {
        return report(tool, &edited);
    }
    if args.device_code {
        sign_in(tool, &args.name).await?;
    }
    let new_token = args.client_credentials || brings_right;
    let call = SmartHostCall { server: tool.global.server.clone(), new_token };
    let path = path::fill(path::SMARTHOST_TEST, &[&args.name]);
    let checks: Vec<Check> = tool.daemon().await?.post(&path, &call, CALL_WAIT).await?;
    doctor::conclude(tool, checks)
}

/// Has a person sign in, and waits as long as the code is good.
async fn sign_in(tool: &mut Tool, name: &str) -> Result<(), Problem> {
    let nothing = serde_json::json!({});
    let path = path::fill(path::SMARTHOST_DEVICE, &[name]);
    let code: DeviceCode = tool.daemon().await?.post(&path, &nothing, CALL_WAIT).await?;
    let minutes = code.good_for.div_ceil(60);
    // Without these words nobody could sign in, so they are said also where little is to be said.
    let told = writeln!(
        io::stderr(),
        "Open {} in a browser, on any machine, and enter the code {}\n\
         as the person whose mailbox it is. The code is good for {minutes} min; waiting.",
        escape(&code.verification_uri),
        escape(&code.user_code),
    );
    told.map_err(io_problem)?;
    let path = path::fill(path::SMARTHOST_DEVICE_POLL, &[name]);
    let (mut waited, mut wait) = (0, code.wait.max(1));
    while waited < code.good_for {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        waited += wait;
        let state: DeviceState = tool.daemon().await?.post(&path, &nothing, CALL_WAIT).await?;
        if state.signed_in {
            return Ok(());
        }
        wait = state.wait.max(1);
    }
    let detail = format!("nobody signed in within {minutes} min");
    Err(Problem::new("smarthost", Kind::Failed, detail)
        .word("token")
        .hint("ask for another code with the same command"))
}

impl Login {
    fn client_secret(&self) -> Result<Option<String>, Problem> {
        let place = Place::of(self.client_secret_stdin, self.client_secret_file.as_deref());
        place.map(|place| secret(place, "a client secret")).transpose()
    }

    fn refresh_token(&self) -> Result<Option<String>, Problem> {
        let place = Place::of(self.refresh_token_stdin, self.refresh_token_file.as_deref());
        place.map(|place| secret(place, "a refresh token")).transpose()
    }

    fn edits(&self, known: Option<&SmartHost>) -> Vec<KeyEdit> {
        let mut edits = Vec::new();
        let mut put = |key: &str, value: Option<&str>| {
            let set = |value: &str| KeyEdit::Set { key: key.to_owned(), value: value.to_owned() };
            edits.extend(value.map(set));
        };
        let its_own = known.is_none() && PRESETS.contains(&&*self.name);
        put("preset", self.preset.as_deref().or_else(|| its_own.then_some(&*self.name)));
        let has_tokens = known.is_some_and(|host| host.auth.contains("oauth"));
        let mechanism = self.mechanism.as_deref();
        put("auth.method", mechanism.or_else(|| (!has_tokens).then_some("xoauth2")));
        put("auth.mailbox", self.mailbox.as_deref());
        let grant = if self.client_credentials { "client-credentials" } else { "refresh-token" };
        put("auth.oauth.grant", Some(grant));
        put("auth.oauth.tenant", self.tenant.as_deref());
        put("auth.oauth.client_id", self.client_id.as_deref());
        put("auth.oauth.token_endpoint", self.token_endpoint.as_deref());
        put("auth.oauth.device_endpoint", self.device_endpoint.as_deref());
        put("auth.oauth.scope", self.scope.as_deref());
        if known.is_some_and(|host| host.auth == "basic") {
            for key in ["auth.user", "auth.password", "auth.mechanisms"] {
                edits.push(KeyEdit::Unset { key: key.to_owned() });
            }
        }
        edits
    }
}

/// The steps at Microsoft, with what was said filled in.
fn print_admin_steps(args: &Login) -> Result<u8, Problem> {
    let preset = args.preset.as_deref().unwrap_or(&args.name);
    if PRESETS.contains(&preset) && preset != MICROSOFT {
        let detail = format!("the steps are those of Microsoft 365, and {preset} is Google's");
        return Err(Problem::new("smarthost", Kind::Usage, detail)
            .hint("a login there takes an app password, or a token of --refresh-token-stdin"));
    }
    let text = admin_steps(
        args.mailbox.as_deref().unwrap_or("MAILBOX"),
        args.tenant.as_deref().unwrap_or("TENANT"),
        args.client_id.as_deref().unwrap_or("CLIENT-ID"),
        &args.name,
    );
    stdout().write_all(text.as_bytes()).map(|()| 0).map_err(io_problem)
}

fn admin_steps(mailbox: &str, tenant: &str, client_id: &str, name: &str) -> String {
    format!(
        "In the admin center of Microsoft Entra, as an administrator of {tenant}:\n\
         1. App registrations, New registration: any name, accounts of this directory only.\n   \
         Its Application (client) ID is {client_id}.\n\
         2. API permissions, Add, APIs my organization uses, Office 365 Exchange Online,\n   \
         Application permissions: SMTP.SendAsApp. Then Grant admin consent.\n\
         3. Certificates & secrets, New client secret. Keep its value, not its id, and note when it ends.\n\
         4. Enterprise applications, the same application: note its Object ID.\n\n\
         In PowerShell, with the module ExchangeOnlineManagement:\n  \
         Connect-ExchangeOnline -Organization {tenant}\n  \
         New-ServicePrincipal -AppId {client_id} -ObjectId OBJECT-ID\n  \
         Add-MailboxPermission -Identity {mailbox} -User OBJECT-ID -AccessRights FullAccess\n  \
         Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false\n\n\
         Here, with the secret on standard input:\n  \
         smtpctl smarthost login {name} --client-credentials --tenant {tenant} \\\n    \
         --client-id {client_id} --client-secret-stdin --mailbox {mailbox}\n"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        login: Login,
    }

    fn edits(line: &str, known: Option<&str>) -> String {
        let words = std::iter::once("x").chain(line.split(' '));
        let login = Line::try_parse_from(words).unwrap().login;
        let known = known.map(|auth| SmartHost {
            name: login.name.clone(),
            tls: "verify".to_owned(),
            auth: auth.to_owned(),
            ..SmartHost::default()
        });
        let word = |edit: KeyEdit| match edit {
            KeyEdit::Set { key, value } => format!("{key}={value}"),
            KeyEdit::Unset { key } => format!("-{key}"),
            other => format!("{other:?}"),
        };
        login.edits(known.as_ref()).into_iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_said_becomes_keys_and_what_was_said_stays() {
        assert_eq!(
            edits("m365 --client-credentials --tenant t --client-id i --mailbox a@b.example", None),
            "preset=m365 auth.method=xoauth2 auth.mailbox=a@b.example \
             auth.oauth.grant=client-credentials auth.oauth.tenant=t auth.oauth.client_id=i"
        );
        assert_eq!(
            edits("m365 --client-credentials", Some("oauthbearer")),
            "auth.oauth.grant=client-credentials"
        );
        assert_eq!(
            edits("isp --device-code --mechanism oauthbearer", Some("basic")),
            "auth.method=oauthbearer auth.oauth.grant=refresh-token -auth.user -auth.password \
             -auth.mechanisms"
        );
    }

    #[test]
    fn one_right_is_named() {
        for line in ["m365", "m365 --device-code --client-credentials"] {
            let words = std::iter::once("x").chain(line.split(' '));
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
        for (line, is_refused) in [("gmail", true), ("x --preset gmail", true), ("isp", false)] {
            let line = format!("x {line} --print-admin-steps");
            let login = Line::try_parse_from(line.split(' ')).unwrap().login;
            assert_eq!(print_admin_steps(&login).is_err(), is_refused, "{line}");
        }
        let steps = admin_steps("a@b.example", "b.example", "i", "m365");
        assert!(steps.contains("Set-CASMailbox -Identity a@b.example"), "{steps}");
    }
}
