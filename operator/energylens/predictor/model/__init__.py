"""What a model computes and holds, whatever the GPU: einsums, their lowering to operators, parameters, memory."""
