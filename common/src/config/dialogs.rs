//! The dialogs of the original's management console, field by field, and what stands for each here.
//!
//! The manual's table is made from this list, and a test does every command of it and looks for
//! what it shows. Files that a command names below /var/log lie in the test's own directory.

/// One field or button of a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The dialog, such as `General`.
    pub dialog: &'static str,
    /// The field as the console names it.
    pub field: &'static str,
    /// What is typed here, with an example.
    pub command: &'static str,
    /// The key that keeps it; empty for a deed.
    pub key: &'static str,
    /// What the key, or for a deed the answer, shows after the example.
    pub shows: &'static str,
}

macro_rules! fields {
    ($($dialog:literal { $($field:literal, $command:literal => $key:literal $shows:literal;)+ })+) => {
        /// All of them, in the order of the console.
        pub const FIELDS: &[Field] = &[$($(Field {
            dialog: $dialog,
            field: $field,
            command: $command,
            key: $key,
            shows: $shows,
        },)+)+];
    };
}

fields! {
    "New virtual server" {
        "Name, IP address, home directory, domain",
            "server create lan --listen 127.0.0.1:0 --root lan-mail --domain lan.example" => "" "lan";
        "What it is for (new here)",
            "server create scans --listen 127.0.0.1:0 --from-template printers" => "" "scans";
    }
    "Virtual server" {
        "Pause", "server pause lan" => "" "paused";
        "Stop", "server stop lan" => "" "stopped";
        "Start", "server start lan" => "" "running";
        "Stop when sessions have ended (new here)", "server stop lan --drain=5s" => "" "stopped";
        "Rename", "server rename lan east" => "" "lan: removed";
        "Delete", "server delete east" => "" "east: removed";
    }
    "General" {
        "IP address, Advanced", "server set default general.listen+=127.0.0.1:0" => "general.listen" "127.0.0.1:0";
        "Limit number of connections to", "server set default general.max_connections=500" => "general.max_connections" "500";
        "Connection time-out", "server set default general.idle_timeout=10m" => "general.idle_timeout" "10m";
    }
    "General, Logging" {
        "Enable logging", "server set default general.logging=true" => "general.logging" "true";
        "Active log format", "config set logging.format=json" => "logging.format" "json";
        "Log file directory", "config set logging.target=file logging.file=/var/log/mailroot/mailroot.log" => "logging.file" "mailroot.log";
        "Active log format, W3C Extended", "config set logging.w3c=/var/log/mailroot/w3c" => "logging.w3c" "w3c";
        "New log time period", "logs reopen" => "" "mailroot.log";
        "Extended properties", "logs level debug --for 10m" => "" "debug";
        "The log file (new here)", "logs --since 1h --level warn" => "" "";
    }
    "Access, Authentication" {
        "Anonymous access", "server set default access.anonymous=true" => "access.anonymous" "true";
        "Integrated Windows authentication",
            "server set default access.integrated.enabled=true access.integrated.realms=CORP.EXAMPLE"
            => "access.integrated.enabled" "true";
        "Basic authentication", "server set default access.basic.enabled=true" => "access.basic.enabled" "true";
        "Requires TLS encryption", "server set default access.basic.require_tls=true" => "access.basic.require_tls" "true";
        "Default domain", "server set default access.basic.domain=corp.example" => "access.basic.domain" "corp.example";
    }
    "Access, Secure communication" {
        "Certificate", "server set default access.tls.certificate=auto" => "access.tls.certificate" "auto";
        "Certificate, with a new one", "cert self-signed relay --for relay.example.net" => "" "relay";
        "Require 128-bit encryption", "server set default access.tls.min_version=1.2" => "access.tls.min_version" "1.2";
        "Require secure channel", "server set default access.tls.mode=required" => "access.tls.mode" "required";
    }
    "Access, Connection" {
        "Only the list below, All except the list below", "access policy --all-except" => "access.connect.policy" "all-except";
        "Add", "access deny 203.0.113.0/24" => "access.connect.list" "203.0.113.0/24";
        "Remove", "access remove 203.0.113.0/24" => "access.connect.list" "none";
        "Add for a time (new here)", "access deny 203.0.113.9 --for 1d" => "access.connect.list" "203.0.113.9";
    }
    "Access, Relay" {
        "Only the list below, All except the list below", "relay policy --only" => "access.relay.policy" "only";
        "Add", "relay allow 10.1.0.0/16" => "access.relay.list" "10.1.0.0/16";
        "Allow all computers which successfully authenticate to relay, regardless of the list above",
            "server set default access.relay.authenticated=true" => "access.relay.authenticated" "true";
        "Remove", "relay remove 10.1.0.0/16" => "access.relay.list" "127.0.0.0/8";
        "Add for a time (new here)", "relay allow 10.2.0.0/16 --for 8h" => "access.relay.list" "10.2.0.0/16";
    }
    "Messages" {
        "Limit message size to", "server set default messages.max_size=2MiB" => "messages.max_size" "2MiB";
        "Limit session size to", "server set default messages.max_session_size=10MiB" => "messages.max_session_size" "10MiB";
        "Limit number of messages per connection to", "server set default messages.max_per_connection=20" => "messages.max_per_connection" "20";
        "Limit number of recipients per message to", "server set default messages.max_recipients=100" => "messages.max_recipients" "100";
        "Badmail directory", "server set default messages.badmail.dir=Dead" => "messages.badmail.dir" "Dead";
        "Send copy of Non-Delivery Report to", "server set default messages.ndr_copy_to=postmaster@example.net" => "messages.ndr_copy_to" "postmaster@example.net";
    }
    "Delivery, Outbound" {
        "First, second, third and subsequent retry intervals", "server set default delivery.outbound.retry=15m,30m,1h,4h" => "delivery.outbound.retry" "15m, 30m, 1h, 4h";
        "Delay notification", "server set default delivery.outbound.delay_notice=12h" => "delivery.outbound.delay_notice" "12h";
        "Expiration time-out", "server set default delivery.outbound.expire=2d" => "delivery.outbound.expire" "2d";
    }
    "Delivery, Local" {
        "Delay notification", "server set default delivery.local.delay_notice=12h" => "delivery.local.delay_notice" "12h";
        "Expiration time-out", "server set default delivery.local.expire=2d" => "delivery.local.expire" "2d";
    }
    "Delivery, Outbound security" {
        "Anonymous access", "smarthost set [192.0.2.26]:2525 --name isp --tls required --no-use" => "" "smart_hosts.isp.host";
        "Basic authentication, User name, Password",
            "config set smart_hosts.isp.auth.method=basic smart_hosts.isp.auth.user=relay 'smart_hosts.isp.auth.password={credential: isp}'" => "" "auth.method";
        "Integrated Windows authentication",
            "config set smart_hosts.isp.host=mail.example.net smart_hosts.isp.auth.method=integrated smart_hosts.isp.auth.user=relay@CORP.EXAMPLE"
            => "" "auth.method";
        "TLS encryption", "server set default delivery.security.tls=required" => "delivery.security.tls" "required";
    }
    "Delivery, Outbound connections" {
        "Limit number of connections to", "server set default delivery.connections.max=1000" => "delivery.connections.max" "1000";
        "Time-out", "server set default delivery.connections.timeout=10m" => "delivery.connections.timeout" "10m";
        "Limit number of connections per domain to", "server set default delivery.connections.per_domain=100" => "delivery.connections.per_domain" "100";
        "TCP port", "server set default delivery.connections.port=2525" => "delivery.connections.port" "2525";
    }
    "Delivery, Advanced" {
        "Maximum hop count", "server set default delivery.max_hops=15" => "delivery.max_hops" "15";
        "Masquerade domain", "server set default delivery.masquerade_domain=example.net" => "delivery.masquerade_domain" "example.net";
        "Fully-qualified domain name", "server set default delivery.fqdn=relay.example.net" => "delivery.fqdn" "relay.example.net";
        "Check DNS", "doctor dns" => "" "relay.example.net";
        "Smart host", "server set default delivery.smart_host=[192.0.2.25]:2525" => "delivery.smart_host" "[192.0.2.25]:2525";
        "Attempt direct delivery before sending to smart host",
            "server set default delivery.direct_first=on_any_temporary_failure" => "delivery.direct_first" "on_any_temporary_failure";
        "Perform reverse DNS lookup on incoming messages", "server set default access.reverse_dns=true" => "access.reverse_dns" "true";
        "Configure external DNS servers", "config set dns.resolvers=192.0.2.53" => "dns.resolvers" "192.0.2.53";
    }
    "LDAP Routing" {
        "Server", "ldap set server=ldaps://[127.0.0.1]:6360" => "ldap.server" "ldaps://[127.0.0.1]:6360";
        "Schema", "ldap set schema=exchange-ldap" => "ldap.schema" "exchange-ldap";
        "Base", "ldap set base=DC=example,DC=net" => "ldap.base" "DC=example,DC=net";
        "Binding, User name, Password",
            "ldap set bind=simple user=mailroot 'password={credential: ldap}'" => "ldap.bind" "simple";
        "Domain", "ldap set domain=example.net" => "ldap.domain" "example.net";
        "Enable LDAP routing", "ldap set enabled=true" => "ldap.enabled" "true";
    }
    "Security" {
        "Operators", "operator add %helpdesk -s default" => "security.operators" "%helpdesk";
        "Operators of all virtual servers", "operator add anna --role viewer" => "control.operators" "anna (viewer)";
    }
    "Domains" {
        "New, alias", "domain add alias example.org" => "" "example.org";
        "New, remote", "domain add remote partner.example" => "" "partner.example";
        "Rename", "domain rename example.org example.com" => "" "example.com";
        "Set as default", "domain default example.com" => "" "example.com";
        "Delete", "domain remove local.test" => "" "local.test";
    }
    "Default domain" {
        "Drop directory", "domain set example.com drop.dir=Letters" => "" "Letters";
        "Enable Drop directory quota", "domain set example.com drop.quota=1GiB" => "" "1GiB";
    }
    "Remote domain" {
        "Allow incoming mail to be relayed to this domain", "domain set partner.example relay=yes" => "" "relay";
        "Send HELO instead of EHLO", "domain set partner.example helo_only=yes" => "" "helo_only";
        "Outbound Security, TLS encryption", "domain set partner.example helo_only= tls=required" => "" "tls";
        "Outbound Security, with a login", "domain set partner.example tls= route=smarthost:isp" => "" "smarthost:isp";
        "Use DNS, Forward all mail to smart host", "domain set partner.example route=hub.partner.example" => "" "hub.partner.example";
    }
    "Remote domain, Advanced" {
        "Queue messages for remote triggered delivery", "domain set partner.example hold.release=etrn" => "" "hold.release";
        "Accounts authorized to retrieve the messages using ATRN",
            "domain set partner.example hold.release=both hold.atrn_users=branch" => "" "hold.atrn_users";
    }
    "Current sessions" {
        "Refresh", "session list" => "" "";
        "Terminate", "session kill --client 192.0.2.1 --yes" => "" "";
        "Terminate all", "session kill --all --yes" => "" "";
    }
    "Mail root" {
        "Queue", "queue list" => "" "";
        "Badmail", "badmail list" => "" "";
        "Drop", "drop list" => "" "";
        "Pickup", "pickup list" => "" "";
    }
    "Performance Monitor" {
        "Counters", "stats --iis-names" => "" "Messages Received Total";
        "Counters, for other programs (new here)", "metrics --grep messages_received" => "" "mailroot_messages_received_total";
    }
}
