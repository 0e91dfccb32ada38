//! How the types that are written as one word or number are described to other people's tools.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::address::{Mailbox, ReversePath};
use crate::id::{QueueId, SessionId};
use crate::status::{EnhancedCode, ReplyCode};
use crate::units::{Span, Timestamp};

macro_rules! described {
    ($($ty:ident: $schema:tt;)*) => {$(
        impl JsonSchema for $ty {
            fn schema_name() -> Cow<'static, str> {
                stringify!($ty).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

described! {
    Timestamp: {"type": "string", "format": "date-time"};
    Span: {"type": "number", "minimum": 0, "description": "Seconds"};
    QueueId: {"type": "string", "pattern": "^[0-9A-HJKMNP-TV-Z]{12}$"};
    SessionId: {"type": "string", "pattern": "^[0-9A-HJKMNP-TV-Z]{6}$"};
    Mailbox: {"type": "string", "description": "A mail address (RFC 5321 section 4.1.2)"};
    ReversePath: {"type": "string", "description": "A mail address, or <> for none"};
    EnhancedCode: {"type": "string", "pattern": "^[245]\\.[0-9]{1,3}\\.[0-9]{1,3}$"};
    ReplyCode: {"type": "integer", "minimum": 200, "maximum": 599};
}
