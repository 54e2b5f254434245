//! The files of `torch.save`: a zip of one pickle and the bytes of each storage.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use candle_core::{DType, Device, Tensor, pickle::Object};
use ndarray::{ArrayView, IxDyn, ShapeBuilder};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{LONGEST_PICKLE, METADATA, STORAGES, unpickle};
use crate::{Error, Result};

/// How a file of `torch.save` begins: as a zip.
pub const MAGIC: &[u8] = b"PK\x03\x04";
/// How it began before PyTorch 1.6: as a pickle.
pub const OLD_MAGIC: &[u8] = b"\x80\x02";

const LARGEST_RANK: usize = 8;
/// Tensors may share a storage, as a layer does that the reference registers twice.
const TIMES_SHARED: usize = 4;

/// All tensors of a state dict, by name; of the one below `key`, where there is a `key`.
///
/// # Errors
/// If the bytes are no such file, its pickle is more than a state dict, or there is none below `key`.
pub fn read(bytes: &[u8], key: Option<&str>) -> Result<BTreeMap<String, Tensor>> {
    let mut archive = Archive::open(bytes)?;
    let pickle = archive.entry("data.pkl", LONGEST_PICKLE)?;
    let Object::Dict(mut items) = unpickle(&pickle)? else {
        return Err(Error::other("its pickle is no state dict: save model.state_dict(), not the model"));
    };
    let dicts: Vec<&str> = items.iter().filter_map(|item| dict(item).map(|(name, _)| name)).collect();
    match key {
        Some(key) => {
            let own = items.iter().filter_map(dict).find(|(name, _)| *name == key);
            items = own.ok_or_else(|| Error::unknown("dict in it", key, dicts))?.1.to_vec();
        }
        None if !dicts.is_empty() => {
            let dicts = dicts.join("', '");
            return Err(Error::other(format!("it holds '{dicts}': name the one that is the state dict with --key")));
        }
        None => {}
    }
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

/// An item that is a dict itself: its name and its items. PyTorch's own about a state dict is none.
fn dict((name, value): &(Object, Object)) -> Option<(&str, &[(Object, Object)])> {
    match (name, value) {
        (Object::Unicode(name), Object::Dict(items)) if name != METADATA => Some((name, items)),
        _ => None,
    }
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
