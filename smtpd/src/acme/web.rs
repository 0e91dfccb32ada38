//! How an authority is asked: by [`Https`], as everybody else on the web is, within bounds.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::https::{Bounds, Https};

/// What one answer may take: a chain of certificates is the longest.
const BOUNDS: Bounds = Bounds { wait: Duration::from_secs(30), octets: 256 * 1024 };

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
            let answer = answer.map_err(|error| Error::Other(Box::new(error)))?;
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}
