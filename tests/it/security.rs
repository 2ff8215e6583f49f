//! Who may talk to whom, and what must never be seen: real certificates, wrong ones, secrets.

mod authority;
mod listener;
