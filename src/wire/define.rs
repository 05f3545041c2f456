//! Macros for the protocol's types: each derives what every type of its kind needs.

/// Structs that travel as JSON objects. A field that is `None` is left out, and may be missing.
macro_rules! object {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident : $type:ty),* $(,)? })*) => {$(
        #[serde_with::skip_serializing_none]
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
        #[serde(rename_all = "camelCase")]
        $(#[$meta])*
        pub struct $name { $($(#[$field_meta])* pub $field: $type),* }
    )*};
}

/// Enums that travel as words: each variant with its word.
macro_rules! words {
    ($($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:tt),* $(,)? })*) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
        $(#[$meta])*
        pub enum $name { $($(#[$variant_meta])* #[serde(rename = $word)] $variant),* }

        impl $name {
            #[allow(dead_code, reason = "not all are listed")]
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            #[allow(dead_code, reason = "not each of them is read outside of serde")]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

/// Texts that keep a rule: each with an example, its rule, and the error of a text that breaks it. Needs `Error` and `echo`.
macro_rules! texts {
    ($($(#[$meta:meta])* pub struct $name:ident like $example:tt, if $rule:expr, else $error:expr;)*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde_with::SerializeDisplay, serde_with::DeserializeFromStr)]
        #[cfg_attr(feature = "broker", derive(utoipa::ToSchema), schema(value_type = String, example = $example))]
        $(#[$meta])*
        pub struct $name(smol_str::SmolStr);

        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let (rule, error): (fn(&str) -> bool, fn(&str) -> Self::Err) = ($rule, $error);
                if rule(text) { Ok(Self(text.into())) } else { Err(error(&echo(text))) }
            }
        }

        $crate::wire::define::shown_as_text!($name);
    )*};
}

macro_rules! shown_as_text {
    ($name:ident) => {
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(super) use {object, shown_as_text, texts, words};
