//! Configuration files in their usual form, and values as they are in force.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;

#[test]
fn files_get_their_usual_form_and_keep_every_comment() {
    let site = Site::start(Setup::new());
    let file = site.home().join("etc/servers.d/default.yaml");
    let odd = fs::read_to_string(&file).unwrap().replace(": ", ":  ") + "\n\n\n# the end\n";
    fs::write(&file, &odd).unwrap();
    let check = site.ctl(&["config", "fmt", "--check"]).exited(10);
    assert!(check.out.contains("default.yaml would be reformatted ("), "{check}");
    let rows = site.ctl(&["config", "fmt", "--check", "-o", "json"]).exited(10);
    let rows: serde_json::Value = serde_json::from_str(&rows.out).unwrap();
    assert!(rows[0]["lines"].as_u64().unwrap() > 2, "{rows}");
    assert_eq!(fs::read_to_string(&file).unwrap(), odd);
    let done = site.control().json(&["config", "fmt"]);
    assert_eq!(done["changed"], true, "{done}");
    let formed = fs::read_to_string(&file).unwrap();
    assert!(formed.ends_with("\n\n# the end\n") && formed.contains("version: 1\n"), "{formed}");
    let history = site.control().json(&["config", "history"]);
    assert_eq!(history[0]["message"], "formatted", "{history}");
    let _same = site.ctl(&["config", "fmt", "--check"]).exited(0);
    let _locked = site.ctl(&["config", "lock", "by others"]).ok();
    let _refused = site.ctl(&["config", "fmt"]).exited(4);
}

#[test]
fn values_that_stand_for_others_are_told_as_they_are() {
    let site = Site::start(Setup::new());
    let _made = site
        .ctl(&["server", "create", "free", "--listen", "127.0.0.1:0", "--domain", "free.test"])
        .ok();
    let shown = |more: &[&str], key: &str| {
        let rows = site.control().json(&[&["config", "show"][..], more].concat());
        let all = rows.as_array().unwrap();
        all.iter().find(|row| row["key"] == key).unwrap()["value"].as_str().unwrap().to_owned()
    };
    let server = ["--effective", "-s", "free"];
    assert_eq!(shown(&["-s", "free"], "delivery.fqdn"), "service.hostname");
    assert_eq!(shown(&server, "delivery.fqdn"), shown(&["--effective"], "service.hostname"));
    assert!(shown(&server, "store.root").ends_with("spool/free"));
    let listen = shown(&server, "general.listen");
    assert!(listen.starts_with("127.0.0.1:") && !listen.ends_with(":0"), "{listen}");
    let table = site.ctl(&["server", "show", "free", "--tab", "store", "--effective"]).ok();
    assert!(table.contains("spool/free"), "{table}");
    let defaults = site.ctl(&["server", "show", "free", "--tab", "store", "--defaults"]).ok();
    assert!(defaults.contains("DEFAULT"), "{defaults}");
}
