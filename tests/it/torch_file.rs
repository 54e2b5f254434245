//! Files as `torch.save` writes them, for tests on machines without Python.

use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
};

use candle_core::{DType, Tensor};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// What `torch.save(state_dict)` writes for these tensors.
pub fn torch_file(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    zipped(&state_dict(tensors), &storages(tensors))
}

/// The storages that [`state_dict`] names.
pub fn storages(tensors: &BTreeMap<String, Tensor>) -> Vec<(String, Vec<u8>)> {
    tensors.values().enumerate().map(|(key, tensor)| (format!("data/{key}"), bytes(tensor))).collect()
}

/// The container around a pickle and its storages.
pub fn zipped(pickle: &[u8], storages: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let others = [("byteorder".to_string(), b"little".to_vec()), ("version".to_string(), b"3\n".to_vec())];
    let first = ("data.pkl".to_string(), pickle.to_vec());
    for (name, content) in std::iter::once(&first).chain(storages).chain(&others) {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.flatten_all().unwrap();
    match tensor.dtype() {
        DType::F32 => flat.to_vec1::<f32>().unwrap().into_iter().flat_map(f32::to_le_bytes).collect(),
        DType::F64 => flat.to_vec1::<f64>().unwrap().into_iter().flat_map(f64::to_le_bytes).collect(),
        DType::I64 => flat.to_vec1::<i64>().unwrap().into_iter().flat_map(i64::to_le_bytes).collect(),
        other => panic!("no test needs {other:?}"),
    }
}

/// The pickle of an ordered dict of tensors, op-code by op-code as PyTorch 2 writes it.
pub fn state_dict(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let mut pickle = Pickle::begin();
    pickle.raw(b"ccollections\nOrderedDict\n").put().raw(b")R").put().raw(b"(");
    for (key, (name, tensor)) in tensors.iter().enumerate() {
        let kind = match tensor.dtype() {
            DType::F32 => "FloatStorage",
            DType::F64 => "DoubleStorage",
            _ => "LongStorage",
        };
        let (dims, strides) = (tensor.dims().to_vec(), tensor.stride().to_vec());
        pickle.text(name).tensor(kind, &key.to_string(), tensor.elem_count(), 0, &dims, &strides);
    }
    pickle.raw(b"u}").put().text("_metadata").raw(b"ccollections\nOrderedDict\n)R").put().raw(b"sb.");
    pickle.bytes
}

pub struct Pickle {
    pub bytes: Vec<u8>,
    remembered: u32,
}

impl Pickle {
    pub fn begin() -> Self {
        Self { bytes: b"\x80\x02".to_vec(), remembered: 0 }
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    pub fn put(&mut self) -> &mut Self {
        self.remembered += 1;
        let place = self.remembered.to_le_bytes();
        self.raw(b"r").raw(&place)
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes()).put()
    }

    pub fn number(&mut self, number: usize) -> &mut Self {
        self.raw(b"J").raw(&(number as i32).to_le_bytes())
    }

    pub fn tensor(
        &mut self,
        kind: &str,
        key: &str,
        len: usize,
        offset: usize,
        dims: &[usize],
        strides: &[usize],
    ) -> &mut Self {
        self.raw(b"ctorch._utils\n_rebuild_tensor_v2\n").put().raw(b"((").text("storage");
        self.raw(format!("ctorch\n{kind}\n").as_bytes()).put().text(key).text("cpu").number(len).raw(b"t").put();
        self.raw(b"Q").number(offset).tuple(dims).tuple(strides);
        self.raw(b"\x89ccollections\nOrderedDict\n)R").put().raw(b"t").put().raw(b"R").put()
    }

    fn tuple(&mut self, numbers: &[usize]) -> &mut Self {
        self.raw(b"(");
        numbers.iter().for_each(|number| {
            self.number(*number);
        });
        self.raw(b"t").put()
    }
}
