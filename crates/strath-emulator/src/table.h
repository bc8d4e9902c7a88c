// Every kernel by its name. Those whose threads meet are told apart: the others run without a stack a thread.

static const Entry TABLE[] = {
    KERNEL(relu), KERNEL(relu_backward), KERNEL(add), KERNEL(bias), KERNEL(bias_gelu), KERNEL(multiply),
    KERNEL(rounded), KERNEL(channels_last), KERNEL(kernel_last_to_channels_last), KERNEL(channels_last_to_kernel_last), KERNEL(patches),
    KERNEL(subsample), KERNEL(subsample_backward), KERNEL(average), KERNEL(average_backward), KERNEL(with_class), KERNEL(without_first), KERNEL(first_row),
    KERNEL(first_row_backward), MEETING_KERNEL(column_moments), MEETING_KERNEL(column_sums), MEETING_KERNEL(column_gradients), KERNEL(add_spans),
    KERNEL(batch_moments), KERNEL(running_moments), KERNEL(normalise), KERNEL(batch_norm_backward), MEETING_KERNEL(row_moments),
    MEETING_KERNEL(group_moments), MEETING_KERNEL(row_norm_backward), MEETING_KERNEL(group_norm_backward), MEETING_KERNEL(softmax),
    MEETING_KERNEL(softmax_backward), MEETING_KERNEL(cross_entropy), KERNEL(split_heads), KERNEL(join_heads), KERNEL(add_fixed), KERNEL(add_wide),
    KERNEL(add_floats), KERNEL(find_outside), KERNEL(round_fixed), KERNEL(round_wide), MEETING_KERNEL(sum_parts), MEETING_KERNEL(add_parts),
    KERNEL(factor_of), MEETING_KERNEL(lift), KERNEL(add_scaled), KERNEL(clip_factor), KERNEL(sgd), KERNEL(sgd_momentum), KERNEL(adamw),
    MEETING_KERNEL(largest_parts), MEETING_KERNEL(largest_of), MEETING_KERNEL(magnitude_parts), KERNEL(dual_of), MEETING_KERNEL(lift_in_ball),
    KERNEL(normals),
};

// 0, or 1 where there is no such kernel.
extern "C" int strath_launch(const char* name, unsigned grid_x, unsigned grid_y, unsigned threads, void** given) {
    for (const Entry& entry : TABLE) {
        if (std::strcmp(entry.name, name) == 0) {
            entry.launch(entry.meets, {grid_x, grid_y, 1}, threads, given);
            return 0;
        }
    }
    return 1;
}
