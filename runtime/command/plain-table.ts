/** Options of cli-table3 for a table without colours and without a line between each two rows. */
export const PLAIN = {
  style: { head: [] as string[], border: [] as string[] },
  chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
};
