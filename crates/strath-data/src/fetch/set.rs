//! The public data sets that are known by digest.

use crate::error::DataError;

/// A public data set.
pub(super) struct PublicSet {
    name: &'static str,
    /// Where its gzipped files are.
    pub(super) address: &'static str,
    pub(super) files: &'static [PublicFile],
}

/// One of its files. Packages recompress, so that size and digest are of the unpacked bytes.
pub(super) struct PublicFile {
    /// Its name, unpacked; with `.gz` at the end it is the name of the packed file.
    pub(super) name: &'static str,
    pub(super) sha256: &'static str,
    pub(super) bytes: u64,
}

const FASHION_MNIST: PublicSet = PublicSet {
    name: "fashion-mnist",
    address: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    files: &[
        PublicFile {
            name: "train-images-idx3-ubyte",
            sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            bytes: 47_040_016,
        },
        PublicFile {
            name: "train-labels-idx1-ubyte",
            sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            bytes: 60_008,
        },
        PublicFile {
            name: "t10k-images-idx3-ubyte",
            sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            bytes: 7_840_016,
        },
        PublicFile {
            name: "t10k-labels-idx1-ubyte",
            sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            bytes: 10_008,
        },
    ],
};

/// How to get a file that is missing.
pub(super) const IF_MISSING: &str =
    "run `strath data fetch fashion-mnist`, or take the folder of Debian's package dataset-fashion-mnist";
/// What to do about a file with other bytes.
pub(super) const IF_OTHER: &str = "remove it and run `strath data fetch fashion-mnist`";

/// The data set of that name.
///
/// # Errors
/// [`DataError::UnknownSet`], which says where the named one comes from.
pub(super) fn known(name: &str) -> Result<&'static PublicSet, DataError> {
    if name == FASHION_MNIST.name {
        return Ok(&FASHION_MNIST);
    }
    let advice = match name {
        "digits" => "the digits are built in: data.kind = \"digits\" needs no file",
        "mnist" => "bring mnist's four IDX files from the data set's page and set data.path to their folder",
        "cifar10" | "cifar100" => "unpack the binary version from the data set's page and set data.path to its folder",
        _ => "data of your own is read from a safetensors file, data.kind = \"safetensors\"",
    };
    Err(DataError::UnknownSet { name: name.into(), advice })
}
