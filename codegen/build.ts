/** Build step, after the compiler: the checkout's layouts in the form that the compiled program loads. */
import { updateStore } from './generate.ts';
import { defaultPlace } from './place.ts';

await updateStore(defaultPlace());
