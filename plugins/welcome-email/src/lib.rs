//! Sends welcome mails: exactly one to each user, and one for each organization that the user joins.
//!
//! | event | mail |
//! | --- | --- |
//! | `user.created`, `user.signup` | a welcome, unless this user has had one |
//! | `membership.created`, `user.organization_membership_created` | a welcome to the organization, unless this user has had one to it |
//!
//! A membership may name its user only by id. Then the mail goes to the address from the event that created the
//! user. If that event has not arrived yet, the attempt fails and is retried, because the two may arrive in
//! either order. The plugin rejects an event of a new user without an address.
//!
//! ```toml
//! [plugin.welcome-email.grants]
//! mail = { from = ["Team <team@example.com>"], to = ["*"] }
//!
//! [plugin.welcome-email.config]                # every line is optional
//! product = "Example"
//! from = "Ada <ada@example.com>"               # default: the first address of the grant
//! reply_to = "help@example.com"
//! subject = "Welcome to {product}"
//! text = "Hello {first_name|there}, …"
//! html = "<p>Hello {first_name|there}, …</p>"  # default: text only
//! organization_subject = "Welcome to {organization|your new organization}"
//! organization_text = "…"
//! organization_html = "…"
//! ```
//!
//! Placeholders are `first_name`, `last_name`, `name`, `email`, `organization` and `product`. The text after `|`
//! is the default.
//!
//! Keys: `user/<user>` is the address and the name; `welcomed/<user>` and `welcomed/<user>/<organization>` are
//! the Message-IDs of the mails.

use posthouse_sdk::{
    Capability, Delivery, Event, Failure, Manifest, Plugin, config, debug,
    event::{Organization, User},
    info, kv,
    outbox::Mail,
    template::{self, Escape},
};
use serde::{Deserialize, Serialize};

struct WelcomeEmail;

impl Plugin for WelcomeEmail {
    fn manifest() -> Manifest {
        Manifest::new("one welcome mail for a user, ever, and one for each organization joined")
            .on(["user.created", "user.signup"])
            .on(["membership.created", "user.organization_membership_created"])
            .requires(Capability::Mail)
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        match event.event_type.as_str() {
            "user.created" | "user.signup" => welcome_user(&event),
            "membership.created" | "user.organization_membership_created" => welcome_to_organization(&event),
            other => {
                debug!("`{other}` is none of the events that are welcomed; nothing to do");
                Ok(())
            }
        }
    }
}

posthouse_sdk::plugin!(WelcomeEmail);

fn welcome_user(event: &Event) -> Result<(), Failure> {
    let user = event.user()?;
    let person = Person::of(&user).ok_or_else(|| event.missing("data.user.email"))?;
    // Stored even if the welcome has been sent: a later membership may need the address.
    kv::set_json(&format!("user/{}", user.id), &person)?;
    let organization = event.organization().ok();
    WELCOME.send_once(&format!("welcomed/{}", user.id), &person, organization.as_ref())
}

fn welcome_to_organization(event: &Event) -> Result<(), Failure> {
    let membership = event.membership()?;
    let user = format!("user/{}", membership.user_id);
    let person = match membership.user.as_ref().and_then(Person::of) {
        Some(person) => person,
        None => kv::get_json(&user)?.ok_or_else(|| {
            Failure::retry(format!(
                "the event holds no address of `{}`, and no `user.created` with one has come yet",
                membership.user_id
            ))
        })?,
    };
    let key = format!("welcomed/{}/{}", membership.user_id, membership.organization_id);
    WELCOME_TO_ORGANIZATION.send_once(&key, &person, membership.organization.as_ref())
}

/// The recipient, with the known data.
#[derive(Serialize, Deserialize)]
struct Person {
    email: String,
    first_name: Option<String>,
    last_name: Option<String>,
    name: Option<String>,
}

impl Person {
    /// The recipient, or none if the user has no address.
    fn of(user: &User) -> Option<Self> {
        Some(Self {
            email: user.email.clone()?,
            first_name: user.first_name.clone(),
            last_name: user.last_name.clone(),
            name: user.display_name(),
        })
    }
}

/// One kind of mail: its keys in config.toml, and their defaults.
struct Letter {
    subject: (&'static str, &'static str),
    text: (&'static str, &'static str),
    html: &'static str,
}

const WELCOME: Letter = Letter {
    subject: ("subject", "Welcome to {product|our service}"),
    text: (
        "text",
        "Hello {first_name|there},\n\nyour account at {product|our service} is ready, with the address \
         {email}.\n\nWelcome aboard!\n",
    ),
    html: "html",
};

const WELCOME_TO_ORGANIZATION: Letter = Letter {
    subject: ("organization_subject", "Welcome to {organization|your new organization}"),
    text: (
        "organization_text",
        "Hello {first_name|there},\n\nyou are now a member of {organization|a new organization} at \
         {product|our service}.\n",
    ),
    html: "organization_html",
};

impl Letter {
    /// Sends the mail, unless `key` says that it was sent. The key and the mail take effect together.
    fn send_once(
        &self,
        key: &str,
        person: &Person,
        organization: Option<&Organization>,
    ) -> Result<(), Failure> {
        if let Some(message_id) = kv::get_string(key)? {
            info!("`{key}` was welcomed before, by {message_id}; nothing to do");
            return Ok(());
        }
        let product = config::get("product");
        let values = [
            ("first_name", person.first_name.as_deref()),
            ("last_name", person.last_name.as_deref()),
            ("name", person.name.as_deref()),
            ("email", Some(person.email.as_str())),
            ("organization", organization.and_then(|known| known.display_name.as_deref())),
            ("product", product.as_deref()),
        ];
        let fill = |key: &str, template: &str, escape| {
            template::fill(template, escape, &values).map_err(|error| config::Error::invalid(key, error))
        };
        let or_default = |(key, default): (&str, &str), escape| {
            fill(key, config::get(key).as_deref().unwrap_or(default), escape)
        };
        let subject = or_default(self.subject, Escape::Line)?;
        let mut mail = Mail::new(&person.email, subject, or_default(self.text, Escape::Text)?);
        if let Some(template) = config::get(self.html) {
            mail = mail.html(fill(self.html, &template, Escape::Html)?);
        }
        if let Some(address) = config::get("from") {
            mail = mail.from(address);
        }
        if let Some(address) = config::get("reply_to") {
            mail = mail.reply_to(address);
        }
        let message_id = mail.send()?;
        kv::set(key, &message_id)?;
        info!("`{key}` is welcomed by {message_id}");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
