//! Tokens that a provider has signed: told by his keys, which are asked for over TLS and kept.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use mailroot_common::config::client_tokens::{ClientTokens, TokenAlgorithm};
use mailroot_common::config::oauth::Endpoint;
use mailroot_common::units::Span;
use smtpd_core::oauth::introspection::Wanted;
use smtpd_core::oauth::jwks::{Key, KeySet, Look, Material, Ring};
use smtpd_core::oauth::jwt::{Flaw, Signed};

use super::judge::Unjudged;
use super::lock;
use crate::clock::Clock;
use crate::https::{Bounds, Https};

/// What an answer with keys may take.
const BOUNDS: Bounds = Bounds { wait: Duration::from_secs(20), octets: 256 * 1024 };

/// Judges tokens by their signatures. Cheap to clone.
#[derive(Clone)]
pub(super) struct Signatures(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    algorithms: Vec<TokenAlgorithm>,
    wanted: Wanted,
    leeway: Span,
    https: Https,
    clock: Clock,
    ring: Mutex<Ring>,
    /// Held by whoever asks for keys; others wait for what comes of it.
    asking: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signatures").field(&self.0.endpoint).finish()
    }
}

impl Signatures {
    /// As the configuration has it; nothing where no keys are named.
    pub(super) fn new(
        keys: &ClientTokens,
        wanted: Wanted,
        https: Https,
        clock: Clock,
    ) -> Option<Self> {
        Some(Self(Arc::new(Inner {
            endpoint: keys.jwks.clone()?,
            algorithms: keys.algorithms.clone(),
            wanted,
            leeway: keys.leeway,
            https,
            clock,
            ring: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        })))
    }

    /// Whose a token is, or why it is no good here.
    ///
    /// # Errors
    ///
    /// [`Unjudged`]; then nothing is known of it.
    pub(super) async fn owner(&self, token: &str) -> Result<Result<String, Flaw>, Unjudged> {
        let inner = &*self.0;
        let signed = match Signed::read(token, &inner.algorithms) {
            Ok(signed) => signed,
            Err(flaw) => return Ok(Err(flaw)),
        };
        let Some(key) = inner.key(signed.key.as_deref(), signed.algorithm).await? else {
            return Ok(Err(Flaw::UnknownKey));
        };
        if !is_signed(&signed, &key.material) {
            return Ok(Err(Flaw::Signature));
        }
        let owner = signed.owner(&inner.wanted, inner.clock.now(), inner.leeway);
        Ok(owner.map(|owner| owner.user))
    }
}

impl Inner {
    /// A key of the provider, who is asked if that may help.
    async fn key(
        &self,
        id: Option<&str>,
        algorithm: TokenAlgorithm,
    ) -> Result<Option<Key>, Unjudged> {
        let look = || lock(&self.ring).look(id, algorithm, self.clock.elapsed());
        let mut found = look();
        if found == Look::Ask {
            let _asking = self.asking.lock().await;
            // Somebody else may have asked meanwhile.
            found = look();
            if found == Look::Ask {
                self.ask().await;
                found = look();
            }
        }
        match found {
            Look::Found(key) => Ok(Some(key)),
            Look::Unknown => Ok(None),
            Look::Unsaid(trouble) => Err(Unjudged::Keys(trouble)),
            Look::Ask => Err(Unjudged::Keys("the clock has jumped".to_owned())),
        }
    }

    async fn ask(&self) {
        let answer = self.get().await;
        let now = self.clock.elapsed();
        let mut ring = lock(&self.ring);
        match answer {
            Ok(keys) => ring.answered(keys, now),
            Err(trouble) => ring.failed(trouble.to_string(), now),
        }
    }

    async fn get(&self) -> Result<KeySet, Unjudged> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(self.endpoint.to_string())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .body(Full::<Bytes>::default())
            .map_err(crate::https::HttpsError::from)?;
        let answer = self.https.request(request, BOUNDS, None).await?;
        match answer.status().as_u16() {
            200 => Ok(KeySet::read(answer.body())?),
            status => Err(Unjudged::Status(status)),
        }
    }
}

/// Whether a token is signed by a key. The key is of the kind that the algorithm wants.
fn is_signed(token: &Signed<'_>, key: &Material) -> bool {
    let (said, signature) = (token.said.as_bytes(), &*token.signature);
    let verified = match key {
        Material::Rsa { modulus, exponent } => {
            let Some(parameters) = rsa(token.algorithm) else { return false };
            RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, said, signature)
        }
        Material::P256(point) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
            .verify(said, signature),
        Material::P384(point) => UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
            .verify(said, signature),
        Material::Ed25519(octets) => {
            UnparsedPublicKey::new(&signature::ED25519, octets).verify(said, signature)
        }
    };
    verified.is_ok()
}

fn rsa(algorithm: TokenAlgorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        TokenAlgorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        TokenAlgorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        TokenAlgorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        TokenAlgorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        TokenAlgorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        TokenAlgorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        TokenAlgorithm::Es256 | TokenAlgorithm::Es384 | TokenAlgorithm::EdDsa => return None,
    })
}
