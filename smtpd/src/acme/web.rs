//! How an authority is asked: by [`Https`], as everybody else on the web is, within bounds.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, RETRY_AFTER};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::https::{Bounds, Https};

/// What one answer may take: a chain of certificates is the longest.
const BOUNDS: Bounds = Bounds { wait: Duration::from_secs(30), octets: 256 * 1024 };

/// The longest that an authority may have us wait, in seconds.
const RETRY_AFTER_MAX: u64 = 60 * 60;

/// Asks one authority.
#[derive(Clone, Debug)]
pub(super) struct Web(pub(super) Https);

impl HttpClient for Web {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let https = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_or_else(|never| match never {}, |it| it.to_bytes());
            let request = Request::from_parts(head, Full::new(body));
            let answer = https.request(request, BOUNDS).await;
            let mut answer = answer.map_err(|error| Error::Other(Box::new(error)))?;
            bound_wait(answer.headers_mut());
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
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
    use super::*;

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
