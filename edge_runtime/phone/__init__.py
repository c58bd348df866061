"""The browser as the device: an app to install on a phone (`app/`), what serves it beside a verifier, its libraries."""
