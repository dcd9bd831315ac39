"""What a model computes and stores, independent of the GPU: einsums, lowering to operations, parameters, memory."""
