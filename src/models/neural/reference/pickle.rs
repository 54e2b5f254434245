//! Pickles of state dicts.
//!
//! candle reads a pickle, one op-code after the other, and makes plain objects of it; nothing in it is run.
//! It trusts what it reads, though: before each op-code stands here what could make it panic, ask for memory
//! that no file of this length needs, or leave something out.

use candle_core::{
    DType,
    pickle::{Object, Stack},
};

use crate::{Error, Result};

/// Of a state dict, some 150 bytes a tensor.
pub const LONGEST_PICKLE: usize = 1 << 22;
/// A state dict in a parameter in a tuple in a tuple, and some room.
const DEEPEST: usize = 16;
/// What a state dict is made of; all else is refused.
const GLOBALS: &[(&str, &str)] =
    &[("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")];
/// The kinds of storage that are numbers.
pub const STORAGES: &[(&str, DType)] = &[
    ("FloatStorage", DType::F32),
    ("DoubleStorage", DType::F64),
    ("HalfStorage", DType::F16),
    ("BFloat16Storage", DType::BF16),
    ("LongStorage", DType::I64),
    ("IntStorage", DType::I32),
    ("ByteStorage", DType::U8),
];
/// Versions of the modules, which PyTorch keeps beside the tensors of a state dict.
pub const METADATA: &str = "_metadata";

/// The object that a pickle describes.
///
/// # Errors
/// If it is damaged, or more than a state dict.
pub fn unpickle(pickle: &[u8]) -> Result<Object> {
    let mut guard = Guard { stack: Stack::empty(), depths: Vec::new(), copies_left: 2 * pickle.len() };
    let mut rest = pickle;
    while !guard.step(&mut rest)? {}
    match (rest.is_empty(), guard.stack.stack().len()) {
        (true, 1) => guard.stack.finalize().map_err(damaged),
        _ => Err(Error::other("its pickle does not end where it should: the file is damaged")),
    }
}

fn damaged(error: candle_core::Error) -> Error {
    Error::other(format!("its pickle cannot be read: {error}"))
}

/// candle's reader of pickles, and what keeps it from harm.
struct Guard {
    stack: Stack,
    /// How deep each object on the stack is: all that walks over one does so by recursion.
    depths: Vec<usize>,
    /// What is remembered, and what is recalled, is copied.
    copies_left: usize,
}

impl Guard {
    /// Reads one op-code; true after the last.
    fn step(&mut self, rest: &mut &[u8]) -> Result<bool> {
        let refuse = |message: &str| Err(Error::other(format!("its pickle {message}")));
        let objects = self.stack.stack();
        match **rest {
            [] => return refuse("is cut off"),
            // candle reserves memory for the length that a text claims to have.
            [b'X', a, b, c, d, ref text @ ..] if u32::from_le_bytes([a, b, c, d]) as usize > text.len() => {
                return refuse("is cut off in a text");
            }
            [0x8a, bytes, ..] if bytes > 8 => return refuse("has a number of more than 64 bits"),
            // An op-code that candle takes for another one.
            [b'd', ..] => return refuse("has an op-code that torch.save does not write"),
            // What an ordered dict is made from, candle leaves out.
            [b'R', ..] => {
                if let [.., Object::Class { class_name, .. }, Object::Tuple(made_from)] = objects
                    && class_name == "OrderedDict"
                    && !made_from.is_empty()
                {
                    return refuse("makes a dict in a way that torch.save does not");
                }
            }
            // What is set on a dict, candle takes for items.
            [b'b', ..] => match objects {
                [.., Object::Dict(_), Object::Dict(set)] if set.iter().all(|(name, _)| is_metadata(name)) => {}
                _ => return refuse("sets something on an object, as in a whole model: save model.state_dict()"),
            },
            [b'q' | b'r', ..] => {
                if let Some(object) = objects.last() {
                    self.copies_left = left(self.copies_left, object)?;
                }
            }
            _ => {}
        }
        let code = rest[0];
        let finished = self.stack.read(rest).map_err(damaged)?;
        let objects = self.stack.stack();
        match (code, objects.last()) {
            (b'c', Some(Object::Class { module_name, class_name })) => allowed(module_name, class_name)?,
            (b'h' | b'j', Some(Object::Tuple(_) | Object::List(_) | Object::Dict(_) | Object::Reduce { .. })) => {
                return refuse("uses an object twice, as torch.save does not in a state dict");
            }
            (b'h' | b'j', Some(object)) => self.copies_left = left(self.copies_left, object)?,
            _ => {}
        }
        let Some(top) = objects.len().checked_sub(1) else {
            self.depths.clear();
            return Ok(finished);
        };
        let inside = self.depths.iter().skip(top).max().copied();
        // Items are put into a container that is there; all else makes a new object of those before.
        let depth = match (code, self.depths.get(top)) {
            (b's' | b'u' | b'a' | b'e' | b'b', Some(own)) => {
                let items = self.depths.iter().skip(top + 1).max().map_or(0, |deepest| deepest + 1);
                items.max(*own)
            }
            // These look at the object on top and leave it.
            (b'q' | b'r' | b'.' | 0x80, Some(own)) => *own,
            _ => inside.map_or(1, |deepest| deepest + 1),
        };
        if depth > DEEPEST {
            return refuse("nests objects deeper than a state dict is");
        }
        self.depths.truncate(top);
        self.depths.push(depth);
        Ok(finished)
    }
}

fn is_metadata(name: &Object) -> bool {
    matches!(name, Object::Unicode(name) if name == METADATA)
}

fn allowed(module: &str, class: &str) -> Result<()> {
    let storage = module == "torch" && STORAGES.iter().any(|(name, _)| *name == class);
    match storage || GLOBALS.contains(&(module, class)) {
        true => Ok(()),
        false => Err(Error::other(format!(
            "its pickle asks for '{module}.{class}', which is no part of a state dict of numbers, and was not run: \
             save model.state_dict()"
        ))),
    }
}

/// What is left of a budget after a copy of `object`.
fn left(budget: usize, object: &Object) -> Result<usize> {
    fn count(object: &Object) -> usize {
        1 + match object {
            Object::Class { module_name, class_name } => (module_name.len() + class_name.len()) / 32,
            Object::Unicode(text) => text.len() / 32,
            Object::Tuple(objects) | Object::List(objects) => objects.iter().map(count).sum(),
            Object::Dict(items) => items.iter().map(|(name, value)| count(name) + count(value)).sum(),
            Object::Reduce { callable, args } | Object::Build { callable, args } => count(callable) + count(args),
            Object::PersistentLoad(id) => count(id),
            _ => 0,
        }
    }
    let left = budget.checked_sub(count(object));
    left.ok_or_else(|| Error::other("its pickle copies more than a state dict needs"))
}
