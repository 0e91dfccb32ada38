//! `cert request` and `cert renew`: certificates that the daemon asks of an authority, and the wait for
//! what it says.

use std::time::Duration;

use mailroot_common::control::{
    AcmeState, AcmeWish, Certificate, Edited, Kind, NewCertificate, Problem, path,
};

use crate::output::escape;
use crate::terms::{TermOptions, report};
use crate::tool::Tool;

/// How long the daemon may take to answer one question.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How often is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Request {
    /// The name it gets.
    #[arg(value_name = "NAME")]
    name: String,
    /// Over ACME, the only way there is: of the authority that is set, or of the one with this directory.
    #[arg(
        long,
        value_name = "URL",
        required = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    acme: String,
    /// The address that the authority may write to.
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// A name that it is for, this machine's if none is given; may be given several times.
    #[arg(long = "for", value_name = "HOST")]
    hosts: Vec<String>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Renew {
    /// Its name; without one, all that are asked for over ACME.
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

pub(super) async fn request(tool: &mut Tool, args: Request) -> Result<u8, Problem> {
    let directory = Some(args.acme).filter(|text| !text.is_empty());
    let acme = Some(AcmeWish { email: args.email, directory });
    let wish = NewCertificate { hosts: args.hosts, acme, ..NewCertificate::default() };
    let path = args.terms.on(&path::fill(path::CERTIFICATE, &[&args.name]))?;
    let edited: Edited = tool.daemon().await?.put(&path, &wish).await?;
    if edited.dry_run || !edited.troubles.is_empty() {
        return report(tool, &edited);
    }
    for change in &edited.changes {
        tool.note(&escape(change));
    }
    await_them(tool, vec![args.name]).await
}

pub(super) async fn renew(tool: &mut Tool, args: Renew) -> Result<u8, Problem> {
    let names = match args.name {
        Some(name) => vec![name],
        None => {
            let all = list(tool).await?;
            all.into_iter().filter(|it| it.acme.is_some()).map(|it| it.name).collect()
        }
    };
    if names.is_empty() {
        let detail = "no certificate is asked for over ACME";
        return Err(Problem::new("cert", Kind::NotFound, detail)
            .hint("smtpctl cert request NAME --acme --email ADDRESS"));
    }
    for name in &names {
        let path = path::fill(path::CERTIFICATE_RENEW, &[name]);
        let nothing = serde_json::json!({});
        let _begun: Certificate = tool.daemon().await?.post(&path, &nothing, ANSWER_WAIT).await?;
    }
    await_them(tool, names).await
}

async fn list(tool: &mut Tool) -> Result<Vec<Certificate>, Problem> {
    tool.daemon().await?.get(path::CERTIFICATES).await
}

/// Waits until none of them is being asked for any more, and tells what came of it. The daemon goes on
/// without us.
async fn await_them(tool: &mut Tool, names: Vec<String>) -> Result<u8, Problem> {
    tool.note("asking the authority; this may take some minutes");
    let done = loop {
        let all = list(tool).await?;
        let ours: Vec<_> = all.into_iter().filter(|it| names.contains(&it.name)).collect();
        if !ours.iter().any(|it| it.acme.as_ref().is_some_and(|acme| acme.asking)) {
            break ours;
        }
        tokio::time::sleep(ASK_EVERY).await;
    };
    let why = |it: &Certificate| {
        let AcmeState { trouble: Some(trouble), next, .. } = it.acme.as_ref()? else { return None };
        Some(format!("{}: {trouble}; asked again at {next}", it.name))
    };
    let mut failed: Vec<String> = done.iter().filter_map(why).collect();
    let gone = names.iter().filter(|name| !done.iter().any(|it| it.name == **name));
    failed.extend(gone.map(|name| format!("{name}: it was taken away meanwhile")));
    if failed.is_empty() {
        tool.print_rows(done)?;
        return Ok(0);
    }
    Err(Problem::new("cert", Kind::Failed, failed.join("\n"))
        .word("not_issued")
        .hint("mend what it says, then: smtpctl cert renew"))
}
