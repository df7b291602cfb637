"""The formats of files of vectors: a class each, and one line here.

Files, in the order in which to read them:

    base               What every file of vectors can do, and how one of several arrays or columns is chosen
    arrays             Arrays side by side: those with two dimensions are vectors, those with one are columns
    numpy_files        .npy and .npz: arrays of NumPy
    safetensors_file   .safetensors: tensors by name
    hdf5_file          .h5: datasets of HDF5
    arrow_columns      .parquet, .arrow and .feather, and tables in memory: a column of lists or of structs
    json_objects       .jsonl and .json: rows with a list of numbers, and what embedding services answer
"""

from __future__ import annotations

from embedcache.vectors.formats.arrow_columns import ArrowColumns
from embedcache.vectors.formats.base import VectorFormat
from embedcache.vectors.formats.hdf5_file import Hdf5Vectors
from embedcache.vectors.formats.json_objects import JsonObjects
from embedcache.vectors.formats.numpy_files import Npy, Npz
from embedcache.vectors.formats.safetensors_file import Safetensors

VECTOR_FORMATS: dict[str, VectorFormat] = {
    suffix: format
    for format in (Npy(), Npz(), ArrowColumns(), JsonObjects(), Safetensors(), Hdf5Vectors())
    for suffix in format.suffixes
}
