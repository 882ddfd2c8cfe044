//! A diagnosis as one object.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Diagnosis, Finding};
use crate::report::summary::CompletenessObject;

/// A diagnosis as one object.
#[derive(Clone, Debug, Serialize)]
pub struct DiagnosisLine<'a> {
    r#type: &'static str,
    from: String,
    to: String,
    span_ns: u64,
    host: &'a str,
    kernel: &'a str,
    sockets: u64,
    states: Map<String, Value>,
    findings: Vec<Value>,
    completeness: CompletenessObject<'a>,
}

impl<'a> DiagnosisLine<'a> {
    /// Of this diagnosis.
    pub fn new(diagnosis: &'a Diagnosis) -> DiagnosisLine<'a> {
        let states = diagnosis.states.iter();
        DiagnosisLine {
            r#type: "diagnosis",
            from: diagnosis.anchor.rfc3339(diagnosis.from),
            to: diagnosis.anchor.rfc3339(diagnosis.to),
            span_ns: diagnosis.to.since(diagnosis.from),
            host: &diagnosis.host,
            kernel: &diagnosis.kernel,
            sockets: diagnosis.sockets(),
            states: states
                .map(|(state, n)| (state.name().to_owned(), json!(n)))
                .collect(),
            findings: diagnosis.findings.iter().map(finding).collect(),
            completeness: CompletenessObject::new(&diagnosis.completeness),
        }
    }
}

fn finding(finding: &Finding) -> Value {
    let lines = |advice: bool| -> Vec<Value> {
        let lines = finding.lines.iter();
        let wanted = lines.filter(|(label, _)| label.is_advice() == advice);
        wanted
            .map(|(label, text)| json!({"label": label.name(), "text": text}))
            .collect()
    };
    json!({
        "id": finding.id.name(),
        "severity": finding.severity.name(),
        "headline": finding.headline,
        "sockets": finding.sockets,
        "evidence": finding.evidence,
        "told": lines(false),
        "advice": lines(true),
    })
}
