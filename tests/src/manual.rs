//! The machines that the manual speaks of, on loopback: the relay of `example.net`, its provider's smart host,
//! a partner who takes mail, a destination that puts it off, and a hub that holds mail for a branch.

use std::net::SocketAddr;

use crate::certificates::{Authority, Valid};
use crate::desk::Desk;
use crate::names::{Kind, Names, Record};
use crate::peer::{Answer, Event, Peer, Stage};
use crate::ports;
use crate::setup::Setup;
use crate::site::Site;

/// The smart host of the provider, and who logs in to it.
const ISP: &str = "smtp.isp.example";
const LOGIN: &str = "relay@example.net";
const PASSWORD: &str = "correct horse";
/// Loopback addresses of these machines; the port is one of the test's own.
const PARTNER: u8 = 221;
const SLOW: u8 = 222;
const PROVIDER: u8 = 223;
const HUB: u8 = 224;
const BRANCH: u8 = 225;

/// A reader's desk and all that its commands meet.
pub struct World {
    /// Where commands run.
    pub desk: Desk,
    /// The daemon that they are for.
    pub relay: Site,
    /// The partner, who takes every message.
    pub partner: Peer,
    _others: Vec<Site>,
    _slow: Peer,
    _names: Names,
    _authority: Authority,
}

fn address(number: u8, record: &str) -> Vec<(String, Record)> {
    match ports::host(number, 0) {
        SocketAddr::V4(it) => vec![(record.to_owned(), Record::A(*it.ip()))],
        SocketAddr::V6(_) => Vec::new(),
    }
}

fn names() -> Names {
    Names::serve(|name, kind| {
        let mx = |host: &str| vec![(name.to_owned(), Record::Mx(10, host.to_owned()))];
        match (name, kind) {
            (ISP, Kind::A) => address(PROVIDER, name),
            ("mx.partner.example" | "mail.example.net", Kind::A) => address(PARTNER, name),
            ("mx.slow.example", Kind::A) => address(SLOW, name),
            ("mail.branch.example", Kind::A) => address(BRANCH, name),
            ("mx.hub.example", Kind::A) => address(HUB, name),
            ("slow.example", Kind::Mx) => mx("mx.slow.example"),
            ("branch.example", Kind::Mx) => mx("mail.branch.example"),
            ("partner.example" | "example.com" | "example.net", Kind::Mx) => {
                mx("mx.partner.example")
            }
            _ => Vec::new(),
        }
    })
}

/// A daemon called so, with this default domain, that delivers to the port of these machines.
fn machine(name: &str, domain: &str, names: &Names, port: u16, at: Option<SocketAddr>) -> Setup {
    let mut setup = Setup::new()
        .service("service.hostname", name)
        .only_domains(&[&format!("{{name: {domain}, type: default}}")])
        .key("delivery.outbound.retry", "[5m]")
        .dns(names.address(), port);
    if let Some(at) = at {
        setup.servers[0].address = at;
        setup = setup.key("general.listen", &at.to_string());
    }
    setup
}

fn provider(names: &Names, authority: &Authority, port: u16, at: SocketAddr) -> Site {
    let site = Site::start(machine(ISP, ISP, names, port, Some(at)));
    let identity = authority.sign(ISP, Valid::Now);
    let file = identity.path().display().to_string();
    site.ctl(&["cert", "install", "isp", "--chain", &file, "--key", &file]).ok();
    let keys = ["access.basic.enabled=true", "access.tls.certificate=isp"];
    site.ctl(&["server", "set", "default", keys[0], keys[1]]).ok();
    let input = format!("{PASSWORD}\n");
    site.control().input(&input).run(&["user", "add", LOGIN, "--password-stdin"]).ok();
    site
}

fn puts_off(event: &Event<'_>) -> Answer {
    match event.stage {
        Stage::Rcpt => Answer::say("451 4.7.1 greylisted, come back later"),
        _ => Answer::Accept,
    }
}

impl World {
    /// The relay and those it delivers to.
    ///
    /// # Panics
    ///
    /// When one of them does not start.
    #[must_use]
    pub fn relay() -> Self {
        let (authority, names, port) = (Authority::new(), names(), ports::free());
        let at = ports::host(PROVIDER, ports::free());
        let isp = provider(&names, &authority, port, at);
        let trust = authority.file().display().to_string();
        let setup = machine("relay1.example.net", "example.net", &names, port, None);
        let relay = Site::start(setup.service("tls.trust", &trust));
        let mut desk = Desk::new();
        desk.machine("relay", relay.home());
        desk.stands_for("127.0.0.1:25", &relay.address().to_string());
        desk.stands_for("127.0.0.1:2526", &ports::local().to_string());
        desk.stands_for(&format!("{ISP}:587"), &format!("{ISP}:{}", at.port()));
        desk.stands_for(
            &format!("{ISP}[192.0.2.7]:587"),
            &format!("{ISP}[{}]:{}", at.ip(), at.port()),
        );
        desk.stands_for("192.0.2.7:587", &at.to_string());
        Self::with(desk, relay, vec![isp], authority, names, port)
    }

    /// A hub that is always there, and a branch that is not.
    ///
    /// # Panics
    ///
    /// When one of them does not start.
    #[must_use]
    pub fn hub_and_branch() -> Self {
        let (authority, names, port) = (Authority::new(), names(), ports::free());
        let (hub_at, branch_at) = (ports::host(HUB, port), ports::host(BRANCH, port));
        let hub = machine("mx.hub.example", "hub.example", &names, port, Some(hub_at));
        let hub = Site::start(hub);
        let branch =
            machine("mail.branch.example", "branch.example", &names, port, Some(branch_at));
        let branch = Site::start(branch);
        let mut desk = Desk::new();
        desk.machine("hub", hub.home());
        desk.machine("branch", branch.home());
        desk.stands_for(
            "smtpctl etrn mx.hub.example ",
            &format!("smtpctl etrn mx.hub.example:{port} "),
        );
        desk.stands_for("192.0.2.44", "127.0.0.1");
        Self::with(desk, hub, vec![branch], authority, names, port)
    }

    fn with(
        mut desk: Desk,
        relay: Site,
        others: Vec<Site>,
        authority: Authority,
        names: Names,
        port: u16,
    ) -> Self {
        for (written, number) in [("192.0.2.20", PARTNER), ("198.51.100.9", SLOW)] {
            let real = ports::host(number, port);
            desk.stands_for(&format!("{written}]:25"), &format!("{}]:{port}", real.ip()));
            desk.stands_for(&format!("{written}:25"), &real.to_string());
            desk.stands_for(written, &real.ip().to_string());
        }
        desk.stands_for("mail.example.net:25", &format!("mail.example.net:{port}"));
        let partner = Peer::accepting(ports::host(PARTNER, port));
        let slow = Peer::start(ports::host(SLOW, port), puts_off);
        Self {
            desk,
            relay,
            partner,
            _others: others,
            _slow: slow,
            _names: names,
            _authority: authority,
        }
    }
}
