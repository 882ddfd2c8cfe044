//! DWARF expressions of call frame information.

use gimli::{Encoding, EvaluationResult, Format, Location, UnwindExpression, Value};

use crate::cfi::{Cfi, slot};

/// Operations of an expression.
const OPERATIONS: u32 = 256;

/// The value of an expression; `base` is pushed first. `None` if it makes no sense, takes too long, or
/// asks for what is not there.
pub(crate) fn value(
    cfi: &Cfi,
    expression: &UnwindExpression<usize>,
    base: Option<u64>,
    memory: impl Fn(u64) -> Option<u64>,
    register: impl Fn(usize) -> Option<u64>,
) -> Option<u64> {
    let encoding = Encoding {
        address_size: 8,
        format: Format::Dwarf32,
        version: 4,
    };
    let mut evaluation = cfi.expression(expression)?.evaluation(encoding);
    evaluation.set_max_iterations(OPERATIONS);
    if let Some(base) = base {
        evaluation.set_initial_value(base);
    }
    let mut result = evaluation.evaluate().ok()?;
    for _ in 0..OPERATIONS {
        result = match result {
            EvaluationResult::Complete => {
                return match evaluation.result().first()?.location {
                    Location::Address { address } => Some(address),
                    _ => None,
                };
            }
            EvaluationResult::RequiresMemory { address, size, .. } => {
                let unused = 8_u32.checked_sub(size.into())? * 8;
                let word = memory(address)?;
                let value = Value::Generic(word & u64::MAX.checked_shr(unused)?);
                evaluation.resume_with_memory(value).ok()?
            }
            EvaluationResult::RequiresRegister { register: r, .. } => {
                let value = Value::Generic(register(slot(r)?)?);
                evaluation.resume_with_register(value).ok()?
            }
            _ => return None,
        };
    }
    None
}
