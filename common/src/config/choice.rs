//! Keys that take one of a few words.

use super::diagnostic::Diagnostic;
use super::node::Node;
use super::section::{Reader, closest};

/// Says that a word is none of the known ones.
pub(crate) fn not_a_choice(
    reader: &Reader,
    node: &Node,
    text: &str,
    known: &[&'static str],
) -> Diagnostic {
    let diagnostic =
        reader.error_at("E0206", format!("\"{text}\" is not a choice here"), node, "unknown word");
    match closest(text, known) {
        Some(near) => diagnostic.help(format!("did you mean \"{near}\"?")),
        None => diagnostic.help(format!("write one of: {}", known.join(", "))),
    }
}

/// Declares a closed set of words as an enum.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $Name:ident {
            $($(#[doc = $doc:literal])+ $Variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $Name {
            $($(#[doc = $doc])+ $Variant,)+
        }

        impl $Name {
            /// All choices, in the order of the manual.
            pub const ALL: &'static [Self] = &[$(Self::$Variant),+];

            /// The word that stands for it in a file.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$Variant => $word,)+
                }
            }
        }

        impl $crate::config::section::Setting for $Name {
            type Quantity = u8;

            fn type_name() -> String {
                [$($word),+].join(" | ")
            }

            fn show(&self) -> String {
                self.word().to_owned()
            }

            fn read(
                node: &$crate::config::node::Node,
                reader: &mut $crate::config::section::Reader,
            ) -> Option<Self> {
                let text = $crate::config::value::scalar(node, reader, "a word")?;
                let found = Self::ALL.iter().find(|choice| choice.word().eq_ignore_ascii_case(text));
                if found.is_none() {
                    let diagnostic =
                        $crate::config::choice::not_a_choice(reader, node, text, &[$($word),+]);
                    reader.report(diagnostic);
                }
                found.copied()
            }
        }
    };
}

pub(crate) use choice;
