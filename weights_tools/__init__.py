"""Writing checkpoints, for programs that read files: by formula, or in another layout.

    python -m weights_tools synthetic golden-tiny OUT --format hf
    python -m weights_tools convert path/to/checkpoint OUT --format raw
    python -m weights_tools validate --device cuda

streams.py        a checkpoint as tensors of the layout wanted, some rows at a time
hf_folder.py      config.json and *.safetensors
meta_folder.py    params.json and consolidated.NN.pth, one file or several
                  state_dict.py its pickle, torch_archive.py its archive
gguf_file.py      one file for llama.cpp
raw_folder.py     config.json, index.json and a file of bare numbers for each tensor
tokenizer_files.py   what goes with the weights: tokenizer, chat template
                     tokenizer_forms.py the forms a tokenizer is written in
quantising.py     matrices in 8 and 4 bits
new_folder.py     a folder is written whole or not at all

validate_golden.py   other implementations, judged by golden bundles
                     validate_peers.py transformers and llama.cpp, validate_styles.py our own styles
                     validate_tally.py what was seen

The package uses `llama_ref`, which never uses it.
"""
