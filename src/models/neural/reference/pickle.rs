//! The files of `torch.save`: a zip of one pickle and the bytes of each storage.
//!
//! candle reads the pickle, one op-code after the other, and makes plain objects of it; nothing in it is
//! run. It trusts what it reads, though: before each op-code stands here what could make it panic, ask for
//! memory that no file of this length needs, or leave something out.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use candle_core::{
    DType, Device, Tensor,
    pickle::{Object, Stack},
};
use ndarray::{ArrayView, IxDyn, ShapeBuilder};
use zip::{CompressionMethod, ZipArchive};

use crate::{Error, Result};

/// How a file of `torch.save` begins: as a zip.
pub const MAGIC: &[u8] = b"PK\x03\x04";
/// How it began before PyTorch 1.6: as a pickle.
pub const OLD_MAGIC: &[u8] = b"\x80\x02";

/// Of a state dict, some 150 bytes a tensor.
const LONGEST_PICKLE: usize = 1 << 22;
/// A state dict in a parameter in a tuple in a tuple, and some room.
const DEEPEST: usize = 16;
const LARGEST_RANK: usize = 8;
/// Tensors may share a storage, as a layer does that the reference registers twice.
const TIMES_SHARED: usize = 4;

/// What a state dict is made of; all else is refused.
const GLOBALS: &[(&str, &str)] =
    &[("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")];
const STORAGES: &[(&str, DType)] = &[
    ("FloatStorage", DType::F32),
    ("DoubleStorage", DType::F64),
    ("HalfStorage", DType::F16),
    ("BFloat16Storage", DType::BF16),
    ("LongStorage", DType::I64),
    ("IntStorage", DType::I32),
    ("ByteStorage", DType::U8),
];
/// Versions of the modules, which PyTorch keeps beside the tensors of a state dict.
const METADATA: &str = "_metadata";

/// All tensors of a state dict, by name.
///
/// # Errors
/// If the bytes are no such file, or its pickle is more than a state dict.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let mut archive = Archive::open(bytes)?;
    let pickle = archive.entry("data.pkl", LONGEST_PICKLE)?;
    let Object::Dict(items) = unpickle(&pickle)? else {
        return Err(Error::other("its pickle is no state dict: save model.state_dict(), not the model"));
    };
    let mut stored = BTreeMap::new();
    for (name, value) in &items {
        let Object::Unicode(name) = name else {
            return Err(Error::other("a name in its state dict is no text: save model.state_dict()"));
        };
        if name == METADATA {
            continue;
        }
        let tensor = Stored::of(value).map_err(|error| Error::other(format!("'{name}' {error}")))?;
        if stored.insert(name.clone(), tensor).is_some() {
            return Err(Error::other(format!("'{name}' is in it twice")));
        }
    }
    archive.tensors(&stored)
}

struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// The folder that everything lies in, with its slash.
    prefix: String,
    length: usize,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| unreadable(&error))?;
        let names = zip.file_names().map(|name| name.map(|name| name.into_owned()));
        let names = names.collect::<Result<Vec<String>, _>>().map_err(|error| unreadable(&error))?;
        let mut prefixes = names.iter().filter_map(|name| {
            let prefix = name.strip_suffix("data.pkl")?;
            (prefix.is_empty() || prefix.ends_with('/')).then(|| prefix.to_string())
        });
        match (prefixes.next(), prefixes.next(), zip.has_duplicate_names()) {
            (Some(prefix), None, false) => Ok(Self { zip, prefix, length: bytes.len() }),
            (None, ..) => Err(Error::other("a zip without data.pkl: not a file that torch.save wrote")),
            _ => Err(Error::other("a zip with names that are there twice: not a file that torch.save wrote")),
        }
    }

    /// The bytes of one entry, checked against its checksum.
    fn entry(&mut self, name: &str, longest: usize) -> Result<Vec<u8>> {
        let name = format!("{}{name}", self.prefix);
        let fault = |message: &str| Error::other(format!("its entry '{name}' {message}"));
        let mut entry = self.zip.by_name(&name).map_err(|error| fault(&format!("cannot be read: {error}")))?;
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(fault("is compressed or encrypted, as torch.save never writes one"));
        }
        let size = usize::try_from(entry.size()).ok().filter(|size| *size <= longest.min(self.length));
        let size = size.ok_or_else(|| fault("is longer than can be"))?;
        let mut content = Vec::with_capacity(size);
        entry
            .by_ref()
            .take(size as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|error| fault(&format!("is damaged: {error}")))?;
        match content.len() == size {
            true => Ok(content),
            false => Err(fault("is shorter or longer than it says: the file is damaged")),
        }
    }

    fn tensors(&mut self, stored: &BTreeMap<String, Stored>) -> Result<BTreeMap<String, Tensor>> {
        let order = format!("{}byteorder", self.prefix);
        if self.zip.index_for_name(&order).is_some() && self.entry("byteorder", 16)? != b"little" {
            return Err(Error::other("it was written by a big-endian machine: save it again on another"));
        }
        let mut storages: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        let mut left = self.length;
        for tensor in stored.values() {
            if !storages.contains_key(&*tensor.key) {
                let bytes = self.entry(&format!("data/{}", tensor.key), left)?;
                left -= bytes.len();
                storages.insert(&tensor.key, bytes);
            }
        }
        let mut left = self.length.saturating_mul(TIMES_SHARED);
        let mut tensors = BTreeMap::new();
        for (name, tensor) in stored {
            let fault = |message: String| Error::other(format!("'{name}' {message}"));
            let bytes = tensor.bytes().filter(|bytes| *bytes <= left);
            left -= bytes.ok_or_else(|| fault("is larger than the file".into()))?;
            tensors.insert(name.clone(), tensor.read(&storages[&*tensor.key]).map_err(fault)?);
        }
        Ok(tensors)
    }
}

fn unreadable(error: &zip::result::ZipError) -> Error {
    Error::other(format!("not a zip that can be read: {error}; the file is damaged or cut off"))
}

/// The object that a pickle describes.
fn unpickle(pickle: &[u8]) -> Result<Object> {
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

/// Where a tensor lies in a storage.
struct Stored {
    key: String,
    dtype: DType,
    dims: Vec<usize>,
    strides: Vec<usize>,
    /// All in elements.
    offset: usize,
    count: usize,
}

impl Stored {
    fn of(object: &Object) -> Result<Self, String> {
        let other = || Err("is not a tensor: save model.state_dict()".to_string());
        let Object::Reduce { callable, args } = object else { return other() };
        let (Object::Class { class_name, .. }, Object::Tuple(args)) = (&**callable, &**args) else { return other() };
        match (&**class_name, &args[..]) {
            ("_rebuild_parameter", [tensor, ..]) => Self::of(tensor),
            ("_rebuild_tensor_v2", [Object::PersistentLoad(id), offset, size, stride, ..]) => {
                let Object::Tuple(id) = &**id else { return other() };
                let [Object::Unicode(kind), Object::Class { class_name, .. }, Object::Unicode(key), ..] = &id[..]
                else {
                    return other();
                };
                let dtype = STORAGES.iter().find(|(name, _)| name == class_name).map(|(_, dtype)| *dtype);
                let (Some(dtype), "storage") = (dtype, &**kind) else { return other() };
                let (dims, strides) = (numbers(size)?, numbers(stride)?);
                if dims.len() != strides.len() || dims.len() > LARGEST_RANK {
                    return Err("has a shape that cannot be".into());
                }
                let count = dims.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim));
                let count = count.ok_or("is larger than any memory")?;
                Ok(Self { key: key.clone(), dtype, dims, strides, offset: number(offset)?, count })
            }
            _ => other(),
        }
    }

    fn bytes(&self) -> Option<usize> {
        self.count.checked_mul(self.dtype.size_in_bytes())
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1usize;
        self.dims.iter().zip(&self.strides).rev().all(|(dim, stride)| {
            let fits = *dim == 1 || *stride == expected;
            expected = expected.saturating_mul(*dim);
            fits
        })
    }

    fn read(&self, storage: &[u8]) -> Result<Tensor, String> {
        let width = self.dtype.size_in_bytes();
        let beyond = || "reaches beyond its storage: the file is damaged".to_string();
        let from = self.offset.checked_mul(width).and_then(|offset| storage.get(offset..)).ok_or_else(beyond)?;
        let tensor = |bytes: &[u8], dims: &[usize]| Tensor::from_raw_buffer(bytes, self.dtype, dims, &Device::Cpu);
        if self.is_contiguous() {
            let bytes = self.bytes().and_then(|bytes| from.get(..bytes)).ok_or_else(beyond)?;
            return tensor(bytes, &self.dims).map_err(|error| error.to_string());
        }
        let whole = from.len() / width;
        let places: Vec<u32> = (0..u32::try_from(whole).map_err(|_| beyond())?).collect();
        let shape = IxDyn(&self.dims).strides(IxDyn(&self.strides));
        let places = ArrayView::from_shape(shape, &places)
            .map_err(|error| format!("cannot be laid out ({error}): save it as tensor.contiguous()"))?;
        let places: Vec<u32> = places.iter().copied().collect();
        let gather = || {
            let places = Tensor::from_vec(places, self.count, &Device::Cpu)?;
            tensor(&from[..whole * width], &[whole])?.index_select(&places, 0)?.reshape(&*self.dims)
        };
        gather().map_err(|error| error.to_string())
    }
}

fn number(object: &Object) -> Result<usize, String> {
    let number = match object {
        Object::Int(number) => usize::try_from(*number).ok(),
        Object::Long(number) => usize::try_from(*number).ok(),
        _ => None,
    };
    number.ok_or_else(|| "has a shape that is no row of numbers".to_string())
}

fn numbers(object: &Object) -> Result<Vec<usize>, String> {
    match object {
        Object::Tuple(numbers) => numbers.iter().map(number).collect(),
        _ => Err("has a shape that is no row of numbers".into()),
    }
}
