//! How an authority is asked: by [`Https`], as everybody else on the web is, within bounds.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, RETRY_AFTER};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use mailroot_common::config::oauth::Endpoint;
use smtpd_core::route::loopback::AddressRule;

use crate::https::{Bounds, Https};

/// What one answer may take: a chain of certificates is the longest.
const BOUNDS: Bounds = Bounds { wait: Duration::from_secs(30), octets: 256 * 1024 };

/// The longest that an authority may have us wait, in seconds.
const RETRY_AFTER_MAX: u64 = 60 * 60;

/// Asks one authority.
#[derive(Clone, Debug)]
pub(super) struct Web {
    pub(super) https: Https,
    /// Its directory, which the operator has chosen.
    pub(super) directory: String,
}

impl HttpClient for Web {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let https = self.https.clone();
        let rule = rule_for(&self.directory, &request.uri().to_string());
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_or_else(|never| match never {}, |it| it.to_bytes());
            let request = Request::from_parts(head, Full::new(body));
            let answer = https.request(request, BOUNDS, rule.as_ref()).await;
            let mut answer = answer.map_err(|error| Error::Other(Box::new(error)))?;
            bound_wait(answer.headers_mut());
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}

/// By which rule an address is asked: at the host of the directory by none, for the operator has named that.
/// Where an authority sends us elsewhere, it could mean a service that only we can reach.
fn rule_for(directory: &str, asked: &str) -> Option<AddressRule> {
    let place = |text: &str| Endpoint::parse(text).map(|it| (it.host().clone(), it.port()));
    let same = place(directory).is_some_and(|home| place(asked) == Some(home));
    (!same).then(AddressRule::default)
}

/// Leaves out a wait that is no number of seconds, or too long a one: the library adds it to the time of day,
/// which has an end.
fn bound_wait(headers: &mut HeaderMap) {
    let seconds = headers.get(RETRY_AFTER).map(|it| it.to_str().ok()?.trim().parse::<u64>().ok());
    if seconds.is_some_and(|it| it.is_none_or(|seconds| seconds > RETRY_AFTER_MAX)) {
        headers.remove(RETRY_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::Profile;
    use mailroot_common::config::section::Section as _;

    use super::*;
    use crate::https::HttpsError;
    use crate::net::{Net, SimulatedNet};
    use crate::resolve::{Resolver, SimulatedDns};
    use crate::tls::ClientTls;

    /// Whether an authority whose directory this is may have us ask there; nobody listens anywhere.
    async fn is_asked(directory: &str, address: &str) -> bool {
        let tls = ClientTls::new(&mailroot_common::config::tls::Tls::defaults(Profile::Modern));
        let net = Net::Simulated(SimulatedNet::default());
        let resolver = Resolver::Simulated(SimulatedDns::default());
        let web = Web { https: Https { net, resolver, tls }, directory: directory.to_owned() };
        let request = Request::get(address).body(BodyWrapper::from(Vec::new())).unwrap();
        let Err(Error::Other(error)) = web.request(request).await else { panic!("it was asked") };
        match error.downcast_ref::<HttpsError>() {
            Some(HttpsError::NotAllowed { .. }) => false,
            Some(HttpsError::Connect { .. }) => true,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_authority_sends_us_to_no_service_that_it_cannot_reach_itself() {
        let world = "https://192.0.2.1/dir";
        assert!(is_asked(world, "https://192.0.2.1/order").await);
        assert!(is_asked(world, "https://192.0.2.9/order").await, "others of the world");
        for inside in [
            "https://10.0.0.1/x",
            "https://192.168.1.1/x",
            "https://169.254.169.254/latest/meta-data",
            "https://[fd00::1]/x",
            "http://127.0.0.1:8080/x",
            "https://127.0.0.1/x",
        ] {
            assert!(!is_asked(world, inside).await, "{inside}");
        }
        // An authority of our own network may be at home there, and nowhere else.
        let own = "https://10.0.0.1:9000/dir";
        assert!(is_asked(own, "https://10.0.0.1:9000/order").await);
        assert!(!is_asked(own, "https://10.0.0.1/order").await);
        assert!(!is_asked(own, "https://10.0.0.2:9000/order").await);
    }

    #[test]
    fn no_authority_has_us_wait_for_ages() {
        for (value, stays) in [
            ("3600", true),
            (" 5 ", true),
            ("3601", false),
            ("18446744073709551615", false),
            ("Fri, 31 Dec 9999 23:59:59 GMT", false),
        ] {
            let mut headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            headers.append(RETRY_AFTER, "18446744073709551615".parse().unwrap());
            bound_wait(&mut headers);
            assert_eq!(headers.get(RETRY_AFTER).is_some(), stays, "{value}");
        }
    }
}
