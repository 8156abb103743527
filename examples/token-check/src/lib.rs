// SPDX-License-Identifier: Apache-2.0
//
// token-check: requests must carry a bearer token that an introspection endpoint knows. Authentication by HTTP callout, in
// Rust over the crate proxy-wasm.
//
//   pluginConfig:
//     cluster: auth.istio-system.svc.cluster.local:80   # who is asked: a declared Service or ServiceEntry
//     path: /introspect                                 # default; asked by GET with the client's Authorization header
//     authority: auth.example.com                       # default: the cluster's name without "outbound|...|" and port
//     timeoutMs: 1000                                   # default
//     userHeader: x-user                                # default; what the upstream gets the answer's "sub" in
//
// The endpoint answers 200 with JSON: the request goes on, with x-user set to its "sub" (without "sub" there is no x-user);
// "active": false (RFC 7662) refuses. 400, 401, 403 and 404 refuse. A refusal is 401 with the challenge of RFC 6750. Anything
// else (no answer in time, no endpoint, 5xx, an answer that is not JSON, a "sub" that cannot be a header) is 503: unknown is not
// allowed. What a client sends as x-user never reaches the upstream.
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use serde_json::Value;

/// Beyond this no endpoint is asked: a token is no place for data.
const TOKEN_MAX: usize = 8192;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Config {
    cluster: String,
    path: String,
    authority: String,
    user_header: String,
    timeout: Duration,
}

impl Config {
    fn parse(text: &[u8]) -> Result<Config, String> {
        let json: Value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        let text_of = |name: &str, default: &str| match json.get(name) {
            None => Ok(default.to_string()),
            Some(Value::String(s)) if !s.is_empty() => Ok(s.clone()),
            Some(_) => Err(format!("{name} must be a string that is not empty")),
        };
        let cluster = text_of("cluster", "")?;
        if cluster.is_empty() {
            return Err("cluster is missing".into());
        }
        let host = cluster.rsplit('|').next().unwrap_or(&cluster);
        let host = host.rsplit_once(':').map_or(host, |(name, _)| name).to_string();
        let timeout = match json.get("timeoutMs") {
            None => 1000,
            Some(v) => v
                .as_f64()
                .filter(|ms| (1.0..=60_000.0).contains(ms))
                .ok_or("timeoutMs must be 1 to 60000")? as u64,
        };
        Ok(Config {
            path: text_of("path", "/introspect")?,
            authority: text_of("authority", &host)?,
            user_header: text_of("userHeader", "x-user")?.to_lowercase(),
            timeout: Duration::from_millis(timeout),
            cluster,
        })
    }
}

#[derive(Default)]
struct Root {
    config: Rc<Config>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        match Config::parse(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(config) => self.config = Rc::new(config),
            Err(why) => {
                log::error!("pluginConfig: {why}");
                return false;
            }
        }
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Check { config: self.config.clone() }))
    }
}

struct Check {
    config: Rc<Config>,
}

enum Verdict {
    User(Option<String>),
    Refused,
    Unknown(String),
}

impl HttpContext for Check {
    fn on_http_request_headers(&mut self, _count: usize, _end: bool) -> Action {
        self.set_http_request_header(&self.config.user_header, None);
        let Some(authorization) = self.authorization() else {
            self.refuse("");
            return Action::Pause;
        };
        let headers = vec![
            (":method", "GET"),
            (":path", self.config.path.as_str()),
            (":authority", self.config.authority.as_str()),
            ("accept", "application/json"),
            ("authorization", authorization.as_str()),
        ];
        if let Err(status) =
            self.dispatch_http_call(&self.config.cluster, headers, None, vec![], self.config.timeout)
        {
            self.unavailable(&format!("cannot ask {}: {status:?}", self.config.cluster));
        }
        Action::Pause
    }
}

impl Context for Check {
    fn on_http_call_response(&mut self, _call: u32, headers: usize, body_size: usize, _trailers: usize) {
        match self.verdict(headers, body_size) {
            Verdict::User(user) => {
                if let Some(user) = user {
                    self.set_http_request_header(&self.config.user_header, Some(&user));
                }
                self.resume_http_request();
            }
            Verdict::Refused => self.refuse(", error=\"invalid_token\""),
            Verdict::Unknown(why) => self.unavailable(&why),
        }
    }
}

impl Check {
    /// The one Authorization header, when it is "Bearer" and a token (RFC 6750, section 2.1). As bytes: a client may send any.
    fn authorization(&self) -> Option<String> {
        let all = self.get_http_request_headers_bytes();
        let mut found = all.iter().filter(|(name, _)| name == "authorization");
        let (Some((_, value)), None) = (found.next(), found.next()) else {
            return None;
        };
        let value = std::str::from_utf8(value).ok()?;
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim_start_matches(' ');
        let is_token = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
        (scheme.eq_ignore_ascii_case("bearer")
            && !token.is_empty()
            && token.len() <= TOKEN_MAX
            && token.bytes().all(is_token))
        .then(|| format!("Bearer {token}"))
    }

    fn verdict(&self, headers: usize, body_size: usize) -> Verdict {
        if headers == 0 {
            return Verdict::Unknown("no answer".into());
        }
        match self.get_http_call_response_header_bytes(":status").as_deref() {
            Some(b"200") => {}
            Some(b"400" | b"401" | b"403" | b"404") => return Verdict::Refused,
            status => return Verdict::Unknown(format!("status {}", String::from_utf8_lossy(status.unwrap_or_default()))),
        }
        let body = self.get_http_call_response_body(0, body_size).unwrap_or_default();
        let Ok(Value::Object(answer)) = serde_json::from_slice(&body) else {
            return Verdict::Unknown("the answer is not a JSON object".into());
        };
        if answer.get("active") == Some(&Value::Bool(false)) {
            return Verdict::Refused;
        }
        match answer.get("sub") {
            None => Verdict::User(None),
            Some(Value::String(sub)) if !sub.is_empty() && sub.bytes().all(|c| (0x21..0x7f).contains(&c)) => {
                Verdict::User(Some(sub.clone()))
            }
            Some(_) => Verdict::Unknown("\"sub\" cannot be a header's value".into()),
        }
    }

    fn refuse(&self, error: &str) {
        let challenge = format!("Bearer realm=\"gateway\"{error}");
        self.send_http_response(
            401,
            vec![("www-authenticate", challenge.as_str()), ("content-type", "text/plain")],
            Some(b"a valid bearer token is required\n"),
        );
    }

    fn unavailable(&self, why: &str) {
        log::warn!("{}: {why}", self.config.cluster);
        self.send_http_response(
            503,
            vec![("content-type", "text/plain")],
            Some(b"the token cannot be checked now\n"),
        );
    }
}
